import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdyn.nems import Layer, Model, from_keywords, keyword, keywords, to_keywords
from skdyn.nems.layers import (
    STRF,
    BatchNormalization,
    Concatenate,
    ConcatSkip,
    Conv2d,
    DoubleExponential,
    FiniteImpulseResponse,
    GatedRecurrentUnit,
    GaussianExpansion,
    Hinge,
    LevelShift,
    LogCompress,
    Multiply,
    MultiplyByExp,
    NumPy,
    OutputNormalization,
    PoleZeroFilter,
    PowerCompress,
    RectifiedLinear,
    ShortTermPlasticity,
    Sigmoid,
    SoftRelu,
    StateDexp,
    StateGain,
    StateHinge,
    Sum,
    SwapDims,
    Tanh,
    WeightChannels,
    WeightChannelsGaussian,
    WeightChannelsMulti,
)

ALL = {"norm_coefficients": True, "positive_only": True, "input": "input"}
SOME = {"stride": 2, "include_anticausal": True}

SAME = [
    ("wc.18x3", WeightChannels((18, 3))),
    ("wc.18x1x10", WeightChannels((18, 1, 10))),
    ("wc.18x3.n", WeightChannels((18, 3), norm_coefficients=True)),
    ("wc.18x3.p", WeightChannels((18, 3), positive_only=True)),
    ("wc.18x3.i", WeightChannels((18, 3), input="input")),
    ("wc.18x3.l2:4", WeightChannels((18, 3), l2=1e-4)),
    ("wc.18x3.n.p.i.l2:3d5", WeightChannels((18, 3), **ALL, l2=10**-3.5)),
    ("wc.18x3.g", WeightChannelsGaussian((18, 3))),
    ("wc.18x3x2.g.i", WeightChannelsGaussian((18, 3, 2), input="input")),
    ("wc.18x3x2.b", WeightChannelsMulti((18, 3, 2))),
    ("wc.18x3x2.b.n.p.i.l2:4", WeightChannelsMulti((18, 3, 2), **ALL, l2=1e-4)),
    ("wc.x3.b", WeightChannelsMulti((None, 3, None))),
    ("wc.x3x2.b", WeightChannelsMulti((None, 3, 2))),
    ("wc.18x3.b", WeightChannelsMulti((18, 3, None))),
    ("wc.x3", WeightChannels((None, 3))),
    ("wc.x1x10", WeightChannels((None, 1, 10))),
    ("fir.15x3", FiniteImpulseResponse((15, 3))),
    ("fir.15x3x2", FiniteImpulseResponse((15, 3, 2))),
    ("fir.15x3.s2", FiniteImpulseResponse((15, 3), stride=2)),
    ("fir.15x3.ac", FiniteImpulseResponse((15, 3), include_anticausal=True)),
    ("fir.15x3.s2.ac.l2:4", FiniteImpulseResponse((15, 3), **SOME, l2=1e-4)),
    ("fir.15", FiniteImpulseResponse((15, None))),
    ("fir.15xx", FiniteImpulseResponse((15, None, None))),
    ("fir.15x1x", FiniteImpulseResponse((15, 1, None))),
    ("strf.18x15", STRF((18, 15))),
    ("strf.18x2x15", STRF((18, 2, 15))),
    ("strf.18x2x15x4.relu", STRF((18, 2, 15, 4), activation="relu")),
    ("strf.18x2x15x4.sk50", STRF((18, 2, 15, 4), skip_alpha=0.5)),
    ("strf.18x2x15x4.sk7", STRF((18, 2, 15, 4), skip_alpha=0.07)),
    ("strf.18x2x15x4.skl50", STRF((18, 2, 15, 4), skip_alpha=-0.5)),
    ("strf.18x15.s3.l2:2", STRF((18, 15), stride=3, l2=0.01)),
    (
        "strf.18x2x15x4.relu.sk100.s2.l2:0d25",
        STRF((18, 2, 15, 4), activation="relu", skip_alpha=1.0, stride=2, l2=10**-0.25),
    ),
    ("lvl.2", LevelShift((2,))),
    ("dexp.2", DoubleExponential((2,))),
    ("dlog.2", LogCompress((2,))),
    ("prelu.2", Hinge((2,))),
    ("relu.2", RectifiedLinear((2,))),
    ("relu.2.s", RectifiedLinear((2,), no_shift=False)),
    ("relu.2.s.o.g", RectifiedLinear((2,), no_shift=False, no_offset=False, no_gain=False)),
    ("srelu.2", SoftRelu((2,))),
    ("sig.2", Sigmoid((2,))),
    ("sig", Sigmoid((None,))),
    ("srelu.2.o", SoftRelu((2,), no_offset=False)),
    ("sig.2.g", Sigmoid((2,), no_gain=False)),
    ("tanh.2", Tanh((2,))),
    ("cat.a.b", Concatenate(input=["a", "b"])),
    ("cat", Concatenate()),
    ("cat.s", Concatenate(sum_later=True)),
    ("cat.a.b.c.s", Concatenate(input=["a", "b", "c"], sum_later=True)),
    ("cat.s.a", Concatenate(input=["s", "a"])),
    ("cat.a.s.s", Concatenate(input=["a", "s"], sum_later=True)),
    ("cat.x.x1", Concatenate(input=["x", "x1"])),
    ("mult", Multiply()),
    ("mult.a", Multiply(input=["a"])),
    ("mult.a.b", Multiply(input=["a", "b"])),
    ("sum", Sum()),
    ("multexp.a.b", MultiplyByExp(input=["a", "b"])),
    ("sd", SwapDims()),
    ("sd.2.3", SwapDims(2, 3)),
    ("skip.4x2.a.b", ConcatSkip((4, 2), input=["a", "b"])),
    ("skip.x2.a.b.l2:4", ConcatSkip((None, 2), input=["a", "b"], l2=1e-4)),
    ("np.sum.axis1", NumPy("sum", op_kwargs={"axis": 1})),
    ("np.clip.0.1", NumPy("clip", op_args=(0, 1))),
    ("pow.log10x", PowerCompress("log10x")),
    ("pow.none", PowerCompress(None)),
    ("wge.4x8", GaussianExpansion((4, 8))),
    ("pz.15x3.p3.z2.fs50", PoleZeroFilter((15, 3), n_poles=3, n_zeros=2, sampling_frequency=50)),
    ("pz.15.p2.z1", PoleZeroFilter((15, None))),
    ("stp.4", ShortTermPlasticity((4,))),
    ("stp.fs200", ShortTermPlasticity(sampling_frequency=200)),
    ("stategain.3x4", StateGain((3, 4))),
    ("stategain", StateGain()),
    ("sdexp.3x4", StateDexp((3, 4))),
    ("statehinge.3x4.m", StateHinge((3, 4), match_sign=True)),
    ("bn.4", BatchNormalization((4,))),
    ("norm", OutputNormalization()),
    ("gru.4x8.l2:3", GatedRecurrentUnit((4, 8), l2=1e-3)),
    ("gru.x8", GatedRecurrentUnit((None, 8))),
    ("conv2d.8x3", Conv2d((8, 3))),
    ("conv2d.8x3x10.stack.s21", Conv2d((8, 3, 10), pooling="stack", stride=2)),
    ("conv2d.8x3xx10.cat.nopad", Conv2d((8, 3, None, 10), pooling="cat", padding="none")),
    (
        "conv2d.8x3x10.max.reflect.l2:4",
        Conv2d((8, 3, 10), pooling="max", padding="reflect", l2=1e-4),
    ),
    ("sum.a.s", Sum(input=["a", "s"])),
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
        ("strf.18x15.skl", "strf.18x15.skl100"),
        ("strf.18x15.skl0", "strf.18x15"),
        ("wc.l2:04d50.18x3", "wc.18x3.l2:4d5"),
        ("wc.18xx.b", "wc.18.b"),
        ("wc.x", "wc"),
        ("sig.2.os", "sig.2.s.o"),
        ("wc.120xR", "wc.120"),
        ("dexp.R", "dexp"),
        ("sd.1.2", "sd"),
        ("pow", "pow.sqrt"),
        ("conv2d.8x3x10.s2", "conv2d.8x3x10.s21"),
        ("fir.15x3.p2z1fs100", "pz.15x3.p2.z1"),
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


def test_a_model_takes_the_very_layers():
    layers = from_keywords("wc.18x8-relu.8", "wc.8x2-relu.2")
    assert [layer.name for layer in layers] == ["wc", "relu", "wc1", "relu1"]
    assert all(one is other for one, other in zip(Model(layers).layers, layers, strict=True))


def test_banks_of_words_take_sizes_from_the_data():
    model = Model(from_keywords("wc.x3.b.l2:2-fir.15xx-dexp"))
    assert model.predict(np.zeros((20, 18, 2))).shape == (20, 2)
    assert to_keywords(list(model.layers)) == "wc.18x3x2.b.l2:2-fir.15x3x2-dexp.2"
    columns = Model(from_keywords("wc.18x3.b-fir.15xx-dexp"))
    assert columns.predict(np.zeros((20, 36))).shape == (20, 2)


@given(l2=st.floats(1e-99, 1))
def test_every_penalty_between_zero_and_one_has_a_word(l2):
    (made,) = from_keywords(to_keywords([WeightChannels((2, 1), l2=l2)]))
    assert made.l2 == l2


@given(exponent=st.decimals("0", "99", places=3))
def test_penalties_are_powers_of_ten(exponent):
    text = f"{exponent}".replace(".", "d")
    (made,) = from_keywords(f"fir.3x1.l2:{text}")
    assert made.l2 == pytest.approx(10 ** -float(exponent), rel=1e-13)
    assert to_keywords([made]) == f"fir.3x1.l2:{text.rstrip('0').rstrip('d')}"


# Keywords of NEMS for layers that exist here, with the matching classes.
OF_NEMS = {
    "wc.18x3": WeightChannels,
    "wc.18x1x10": WeightChannels,
    "wc.18x3.g": WeightChannelsGaussian,
    "wc.18x3x2.b": WeightChannelsMulti,
    "wc.18x3.n": WeightChannels,
    "wc.18x3.p": WeightChannels,
    "wc.18x3.l2:4": WeightChannels,
    "wc.18x3.i": WeightChannels,
    "fir.15x3": FiniteImpulseResponse,
    "fir.15x3x10": FiniteImpulseResponse,
    "fir.15x3.s2": FiniteImpulseResponse,
    "fir.15x3.l2:4": FiniteImpulseResponse,
    "strf.18x15": STRF,
    "strf.18x3x15": STRF,
    "strf.18x3x15x10": STRF,
    "strf.18x3x15x10.relu": STRF,
    "strf.18x3x15x10.sk": STRF,
    "strf.18x3x15x10.sk50": STRF,
    "strf.18x3x15x10.skl": STRF,
    "strf.18x3x15x10.s2": STRF,
    "strf.18x3x15x10.l2:4": STRF,
    "lvl.1": LevelShift,
    "dexp.1": DoubleExponential,
    "dlog.18": LogCompress,
    **{f"sig.1{option}": Sigmoid for option in ("", ".s", ".o", ".os", ".g")},
    **{f"relu.1{option}": RectifiedLinear for option in ("", ".s", ".o", ".os", ".g")},
    **{f"srelu.1{option}": SoftRelu for option in ("", ".s", ".o", ".os", ".g")},
    "prelu.1": Hinge,
    "stp.18": ShortTermPlasticity,
    "stategain.2x1": StateGain,
    "sdexp.2x1": StateDexp,
    "statehinge.2x1": StateHinge,
    "statehinge.2x1.m": StateHinge,
    "conv2d.8x3": Conv2d,
    "conv2d.8x3x4": Conv2d,
    "conv2d.8x3x4.stack": Conv2d,
    "conv2d.8x3x4.max": Conv2d,
    "conv2d.8x3x4.s21": Conv2d,
    "np.sum.axis1": NumPy,
    "sd": SwapDims,
    "sd.2.3": SwapDims,
    "skip.18x4.a.b": ConcatSkip,
    "multexp": MultiplyByExp,
    "cat.a.b": Concatenate,
    "cat.a.b.s": Concatenate,
    "mult": Multiply,
    "mult.a": Multiply,
    "mult.a.b": Multiply,
}


@pytest.mark.parametrize(("text", "kind"), OF_NEMS.items())
def test_words_of_nems(text, kind):
    made = from_keywords(text)
    assert type(made[0]) is kind
    written = to_keywords(made)
    assert from_keywords(written) == made
    start, point, last = text.rpartition(".")
    longer = {"os": "s.o", "sk": "sk100", "skl": "skl100"}
    assert written == start + point + longer.get(last, last)


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
        ("wc.18x3-", "Unknown word ''"),
        ("wc.18x3.q", r"option 'q' in 'wc\.18x3\.q': expected 'n', 'p', 'i', 'l2:#', 'b', 'g'"),
        ("strf.18x15.rellu", r"option 'rellu'.*Did you mean 'relu'\?"),
        ("wc.18x3.g.n", "option 'n' in 'wc.18x3.g.n': expected 'i', 'b', 'g'"),
        ("wc.18x3.g.b", "options 'g', 'b': at most one is possible"),
        ("wc.18x3.g.l2:4", "option 'l2:4' in"),
        ("wc.18x3x2x2.b", "4 sizes, but can have at most 3"),
        ("wc..18x3", r"'wc\.\.18x3' has two points in a row"),
        ("cat.a.", r"'cat\.a\.' has two points in a row, or ends"),
        ("wc.18x3.l2:4.l2:5", "'l2:4', 'l2:5', but at most one"),
        *[
            (f"wc.18x3.l2:{bad}", rf"option 'l2:{bad}'.*must have a number from 0 to 99. Write")
            for bad in ("", "x", "4d", "d5", "100", "4e2", "4d5d6", " 4")
        ],
        ("fir.15x3.l2e-3", r"option 'l2e' in .*Did you mean 'l2:#'\?"),
        ("fir.15x3.l1:4", r"option 'l1:4'.*Did you mean 'l2:#'\?"),
        ("lvl.2.l2:4", "option 'l2:4'.*expected none"),
        ("fir.15x3.p2z1", "Option 'p2z1'.*poles and zeros: write 'pz"),
        ("fir.15x3.z2", "Option 'z2'.*poles and zeros"),
        ("fir.15x3.s2.s3", "'s2', 's3', but at most one"),
        ("strf.18x15.sk.sk50", "'sk', 'sk50', but at most one"),
        ("strf.18x15.sk50.skl50", "'sk50', 'skl50', but at most one"),
        ("strf.18x15.s2d5", "option 's2d5'"),
        ("relu.2.n", "Option 'n' in 'relu.2.n' has no effect in NEMS"),
        ("relu.2.s.s", "'s', 's', but at most one"),
        ("wc.18x3x2x2", "4 sizes, but can have at most 3"),
        ("lvl.2x2", "2 sizes, but can have at most 1"),
        ("sum.2", "size '2' where a name of data"),
        ("fir.15x3.s0", "stride"),
        ("lvl.2.s", "option 's'.*expected none"),
        ("hrtf.18x2", "head-related transfer functions, which are not available"),
        ("applyhrtf.18", "head-related transfer functions"),
        ("conv2d.8x3.MAX", "written in small letters"),
        ("conv2d.8x3.max.min", "'max', 'min', but at most one"),
        ("conv2d.8x3.max.max", "'max', 'max', but at most one"),
        ("skip.4x2.5.b", "where a name is expected"),
        ("LN.x18", "must say the number of lags"),
        ("LN.15x18.g", "gaussian=True needs"),
        ("CNNpop.15x18.l1:4", "option 'l1:4'"),
    ],
)
def test_errors_name_the_word_and_the_nearest_one(text, message):
    with pytest.raises(ValueError, match=message):
        from_keywords(text)


def test_layers_without_a_word():
    class Own(Layer):
        pass

    with pytest.raises(
        ValueError, match=r"A Own has no word; layers that have one are .*'WeightChannels'"
    ):
        to_keywords([LevelShift((1,)), Own()])


@pytest.mark.parametrize(
    ("layer", "lost"),
    [
        (WeightChannels((2, 3), l2=0), "'l2': 0.0"),
        (WeightChannels((2, 3), l2=4), "'l2': 4.0"),
        (WeightChannels((2, 3), l2=1e-200), "'l2': 1e-200"),
        (WeightChannels((2, 3), input="x"), "'input': 'x'"),
        (WeightChannels((2, 3), output="x"), "'output': 'x'"),
        (WeightChannels((2, 3, 4, 5)), r"'shape': \(2, 3, 4, 5\)"),
        (STRF((18, 15), skip_alpha=0.333), "'skip_alpha': 0.333"),
        (Concatenate(axis=2), "'axis': 2"),
        (Concatenate(input=["a", "s"]), r"'input': \['a', 's'\]"),
        (Concatenate(input=["a-b"]), r"'input': \['a-b'\]"),
        (Sum(input="ab"), "'input': 'ab'"),
        (Sum(input=["y.1"]), r"'input': \['y.1'\]"),
        (Multiply(input=[["a", "b"]]), "'input': "),
    ],
)
def test_what_no_word_can_say(layer, lost):
    with pytest.raises(ValueError, match=rf"^A .* with {{.*{lost}.*}} cannot be .*does not say"):
        to_keywords([LevelShift((1,)), layer])


def test_inputs_may_be_tuples():
    assert to_keywords([Concatenate(input=("a", "b"))]) == "cat.a.b"


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
        word.flags("e#", "l2:#")
        return Power(word.shape(1), exponent=word.number("e", 2), l2=word.penalty)

    first, second = from_keywords("power.3.e5.l2:2-power")
    assert (first.exponent, first.shape, first.name, first.l2) == (5, (3,), "power", 0.01)
    assert (second.exponent, second.shape, second.name) == (2, (None,), "power1")
    assert second.l2 is None
    with pytest.raises(ValueError, match="option 'f'"):
        from_keywords("power.f")
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        keyword("a-b")
