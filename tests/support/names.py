"""Names that a column, a class or a key may have."""

NAMES = [
    "patient's age",
    'size 3.5" disk',
    "a]['b'](c){d}%s{0}$x${target}\\",
    "two\nlines\r\n- and a bullet",
    "",
    "target",
    "prediction",
    "probabilities",
    "row",
    "key",
    "numeric",
    "c1",
    "__class__",
    "tab\tand \x00 and | bar",
    "😀 é e\u0301 \u202e",
    "</title><script>alert(1)</script>",
    "`code` **bold** [a](javascript:b) <b>",
    " blanks ",
    "../../etc/passwd",
    "x" * 1000,
]
