from xml.etree import ElementTree
from xml.etree.ElementTree import TreeBuilder, XMLParser

import pytest
from matplotlib.figure import Figure

from senet_jax import text


def test_a_terminal_is_sent_no_control_characters():
    assert text.printable("Hund\x1b[2J\r\n\u202e\udcff é 犬") == r"Hund\x1b[2J\r\n\u202e\udcff é 犬"


def test_markdown_shows_markup_as_text():
    assert text.markdown("a|b <i> *c*") == r"a\|b \<i\> \*c\*"
    assert text.markdown("_a_b é_1 c__d e_") == r"\_a_b é_1 c\_\_d e\_"


def test_latex_shows_its_special_characters():
    assert text.latex("50%_a\\b{~^}") == (
        r"50\%\_a\textbackslash{}b\{\textasciitilde{}\textasciicircum{}\}"
    )


def test_a_spreadsheet_computes_nothing():
    assert text.spreadsheet("=1+1") == "'=1+1"
    assert text.spreadsheet("a=1") == "a=1"


def test_a_cell_of_a_latex_row_is_no_option_of_the_row():
    assert text.latex("[1em]*") == "{[}1em{]}{*}"


def test_a_dollar_sign_opens_no_formula():
    assert text.markdown("$a$") == r"\$a\$"
    assert text.spreadsheet("\uff1d1+1") == "'\uff1d1+1"


@pytest.mark.parametrize("name", [r"$\foo$", "$a$", r"\$", "a$", "_a", "a\x1b\udce9\nb"])
def test_a_figure_draws_a_name_as_it_is(name, tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label=text.figure_text(name))
    axes.legend()
    figure.savefig(tmp_path / "drawn.svg")
    # The text of a glyph is in a comment, without what opens or closes mathtext.
    drawn = ElementTree.parse(
        tmp_path / "drawn.svg", XMLParser(target=TreeBuilder(insert_comments=True))
    )
    comments = [
        node.text.strip().strip("\u200b")
        for node in drawn.iter()
        if node.tag is ElementTree.Comment
    ]
    assert text.printable(name) in comments
