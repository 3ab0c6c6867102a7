import numpy as np
import pytest

from skdyn.nems import Layer, Model, from_keywords, keyword, keywords, to_keywords
from skdyn.nems.layers import (
    STRF,
    Concatenate,
    DoubleExponential,
    FiniteImpulseResponse,
    Hinge,
    LevelShift,
    LogCompress,
    Multiply,
    RectifiedLinear,
    Sigmoid,
    SoftRelu,
    Sum,
    Tanh,
    WeightChannels,
    WeightChannelsGaussian,
)

SAME = [
    ("wc.18x3", WeightChannels((18, 3))),
    ("wc.18x1x10", WeightChannels((18, 1, 10))),
    ("wc.18x3.n", WeightChannels((18, 3), norm_coefficients=True)),
    ("wc.18x3.p", WeightChannels((18, 3), positive_only=True)),
    ("wc.18x3.i", WeightChannels((18, 3), input="input")),
    ("wc.18x3.g", WeightChannelsGaussian((18, 3))),
    ("fir.15x3", FiniteImpulseResponse((15, 3))),
    ("fir.15x3x2", FiniteImpulseResponse((15, 3, 2))),
    ("fir.15x3.s2", FiniteImpulseResponse((15, 3), stride=2)),
    ("fir.15x3.ac", FiniteImpulseResponse((15, 3), include_anticausal=True)),
    ("strf.18x15", STRF((18, 15))),
    ("strf.18x2x15", STRF((18, 2, 15))),
    ("strf.18x2x15x4.relu", STRF((18, 2, 15, 4), activation="relu")),
    ("strf.18x2x15x4.sk50", STRF((18, 2, 15, 4), skip_alpha=0.5)),
    ("lvl.2", LevelShift((2,))),
    ("dexp.2", DoubleExponential((2,))),
    ("dlog.2", LogCompress((2,))),
    ("prelu.2", Hinge((2,))),
    ("relu.2", RectifiedLinear((2,))),
    ("relu.2.s", RectifiedLinear((2,), no_shift=False)),
    ("srelu.2.o", SoftRelu((2,), no_offset=False)),
    ("sig.2.g", Sigmoid((2,), no_gain=False)),
    ("tanh.2", Tanh((2,))),
    ("cat.a.b", Concatenate(input=["a", "b"])),
    ("mult.a.b", Multiply(input=["a", "b"])),
    ("sum", Sum()),
]


@pytest.mark.parametrize(("text", "layer"), SAME, ids=[text for text, _ in SAME])
def test_words_make_layers_and_are_made_of_them(text, layer):
    (made,) = from_keywords(text)
    assert made == layer
    assert made.get_params() == {**layer.get_params(), "name": text.split(".")[0]}
    assert to_keywords([layer]) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("relu.2.os", "relu.2.s.o"),
        ("relu.os.2.g", "relu.2.s.o.g"),
        ("wc.p.n.18x3", "wc.18x3.n.p"),
        (" wc.18x3 ", "wc.18x3"),
        ("strf.18x15.sk", "strf.18x15.sk100"),
    ],
)
def test_what_can_be_said_in_several_ways(text, same):
    assert from_keywords(text) == from_keywords(same)
    assert to_keywords(from_keywords(text)) == same


def test_several_words():
    texts = ["wc.18x3", "fir.15x3", "lvl.1", "dexp.1"]
    layers = from_keywords("-".join(texts))
    assert layers == from_keywords(*texts) == from_keywords("wc.18x3-fir.15x3", "lvl.1-dexp.1")
    assert [layer.name for layer in Model(layers).layers] == ["wc", "fir", "lvl", "dexp"]
    twice = Model(from_keywords("wc.18x8-relu.8-wc.8x2-relu.2"))
    assert [layer.name for layer in twice.layers] == ["wc", "relu", "wc1", "relu1"]


def test_sizes_left_out_are_taken_from_the_data():
    layers = from_keywords("wc.x3-fir.15-lvl-dexp")
    assert [layer.shape for layer in layers] == [(None, 3), (15, None), (None,), (None,)]
    assert to_keywords(layers) == "wc.x3-fir.15-lvl-dexp"
    model = Model(layers)
    assert model.predict(np.zeros((20, 18))).shape == (20, 1)
    assert to_keywords(list(model.layers)) == "wc.18x3-fir.15x3-lvl.1-dexp.1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wx.18x3", r"'wx\.18x3'.*begins with.*Did you mean 'wc'\?"),
        ("wc.18x3-frr.15", r"'frr\.15'.*Did you mean 'fir'\?"),
        ("wc.18x3-", "the word ''"),
        ("wc.18x3.q", r"option 'q' in the word 'wc\.18x3\.q', expected 'g', 'n', 'p', 'i'"),
        ("strf.18x15.rellu", r"option 'rellu'.*Did you mean 'relu'\?"),
        ("wc.18x3.g.n", "'g', 'n'.*expected one"),
        ("wc.18x3x2x2", "4 sizes, expected at most 3"),
        ("lvl.2x2", "2 sizes, expected at most 1"),
        ("sum.2", "1 sizes, expected at most 0"),
        ("fir.15x3.s0", "stride"),
        ("lvl.2.s", "option 's'.*expected none"),
    ],
)
def test_errors_name_the_word_and_the_nearest_one(text, message):
    with pytest.raises(ValueError, match=message):
        from_keywords(text)


def test_layers_without_a_word():
    class Own(Layer):
        pass

    with pytest.raises(ValueError, match=r"type Own, expected one of 'WeightChannels'"):
        to_keywords([LevelShift((1,)), Own()])


def test_words_of_ones_own(monkeypatch):
    monkeypatch.setattr(keywords, "WORDS", dict(keywords.WORDS))

    class Power(Layer):
        def __init__(self, shape=None, *, exponent=2, **layer_options):
            self.exponent = exponent
            super().__init__(shape, **layer_options)

        def evaluate(self, values):
            return values**self.exponent

    @keyword("power")
    def power(word):
        word.flags("e#")
        return Power(word.shape(1), exponent=word.number("e", 2))

    first, second = from_keywords("power.3.e5-power")
    assert (first.exponent, first.shape, first.name) == (5, (3,), "power")
    assert (second.exponent, second.shape) == (2, (None,))
    with pytest.raises(ValueError, match="option 'f'"):
        from_keywords("power.f")
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        keyword("a-b")
