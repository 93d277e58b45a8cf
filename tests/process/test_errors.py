from flax_resnet.process.errors import UserError, printable


def test_control_characters_and_lone_surrogates_are_shown_escaped():
    assert printable("a\x1b[2J\r\udcff") == "a\\x1b[2J\\r\\udcff"
    assert printable("élan 犬") == "élan 犬"


def test_an_error_keeps_its_lines_and_escapes_what_they_hold():
    error = UserError("\x1b]0;title\x07: wrong; use one of:\n  this", field="config.dataset")
    assert str(error) == "\\x1b]0;title\\x07: wrong; use one of:\n  this"
