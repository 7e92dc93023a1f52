from senet_jax import text


def test_a_terminal_is_sent_no_control_characters():
    assert text.printable("Hund\x1b[2J\r\n\u202e\udcff é 犬") == r"Hund\x1b[2J\r\n\u202e\udcff é 犬"


def test_markdown_shows_markup_as_text():
    assert text.markdown("a|b <i> *c*") == r"a\|b \<i\> \*c\*"


def test_latex_shows_its_special_characters():
    assert text.latex("50%_a\\b{~^}") == (
        r"50\%\_a\textbackslash{}b\{\textasciitilde{}\textasciicircum{}\}"
    )


def test_a_spreadsheet_computes_nothing():
    assert text.spreadsheet("=1+1") == "'=1+1"
    assert text.spreadsheet("a=1") == "a=1"
