"""What a program has set for itself changes no result, and is as it was afterwards."""

import contextlib
import locale
import random
import threading
import warnings

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

import tlkit
from tlkit.estimator import ImageClassifier
from tlkit.settings import ProcessSetting, SetAside, own_settings, with_own_settings


@contextlib.contextmanager
def set_back(read, write, value):
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def attribute(module, name, value):
    return set_back(lambda: getattr(module, name), lambda one: setattr(module, name, one), value)


@contextlib.contextmanager
def all_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


SETTINGS = {
    "float64": lambda: set_back(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "coarse products": lambda: set_back(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "deterministic": lambda: set_back(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "numpy raises": lambda: np.errstate(all="raise"),
    "warnings are errors": all_warnings_are_errors,
    "truncated images": lambda: attribute(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
    "few pixels": lambda: attribute(Image, "MAX_IMAGE_PIXELS", 100),
    "opencv threads": lambda: set_back(cv2.getNumThreads, cv2.setNumThreads, 3),
    "device": lambda: set_back(torch.get_default_device, torch.set_default_device, "meta"),
}


@contextlib.contextmanager
def all_of(names):
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(SETTINGS[name]())
        yield


PROGRAMS = {
    "float64": ["float64"],
    "no gradients": ["no gradients", "coarse products"],
    "everything": list(SETTINGS),
}


def process() -> dict:
    """What a program can have set."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "inference": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "products": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "benchmark": torch.backends.cudnn.benchmark,
        "numpy": np.geterr(),
        "truncated": ImageFile.LOAD_TRUNCATED_IMAGES,
        "pixels": Image.MAX_IMAGE_PIXELS,
        "opencv": cv2.getNumThreads(),
        "warnings": list(warnings.filters),
        "locale": locale.setlocale(locale.LC_ALL),
        "torch's numbers": torch.get_rng_state().tolist(),
        "numpy's numbers": str(np.random.get_state()),
        "python's numbers": random.getstate(),
    }


FITS = {
    "solved": {"augment": "light"},
    "fine-tuned": {"freeze": "none", "epochs": 1},
}


@pytest.fixture(scope="module")
def plain(colours, tmp_path_factory):
    """Digests of the heads of a program that has set nothing, and the run of the first."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_CACHE", str(runs / "cache"))
        fits = {
            name: tlkit.fit(colours, backbone="tiny", out=runs / name, **options)
            for name, options in FITS.items()
        }
        yield {name: one.card.tensors_sha256 for name, one in fits.items()}, fits["solved"].run


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_fit_is_the_same_whatever_the_program_has_set(plain, colours, program):
    with all_of(PROGRAMS[program]):
        before = process()
        for name, options in FITS.items():
            result = tlkit.fit(colours, backbone="tiny", out=name, **options)
            assert result.card.tensors_sha256 == plain[0][name], name
        assert process() == before


@pytest.mark.parametrize("program", PROGRAMS)
def test_answers_are_the_same_whatever_the_program_has_set(plain, colours, program):
    _, run = plain

    def answers() -> list[np.ndarray]:
        head = tlkit.load(run)
        found = [one.probabilities for one in head.predict(colours / "red", tta="mirror")]
        return [*found, head.evaluate(colours).confusion]

    expected = answers()
    with all_of(PROGRAMS[program]):
        before = process()
        found = answers()
        assert process() == before
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_estimator_is_the_same_whatever_the_program_has_set(colours):
    paths = sorted(colours.rglob("*.png"))
    names = [one.parent.name for one in paths]

    def answers() -> np.ndarray:
        fitted = ImageClassifier(backbone="tiny").fit(paths, names)
        return np.hstack([fitted.predict_proba(paths), fitted.transform(paths)])

    expected = answers()
    with all_of(SETTINGS):
        before = process()
        found = answers()
        assert process() == before
    np.testing.assert_array_equal(found, expected)


def test_between_the_steps_a_program_has_its_own_settings(plain, colours):
    seen = []

    def now() -> dict:
        # While photos are read ahead, there is one thread for each.
        return {**process(), "opencv": 0}

    with torch.inference_mode(), torch.autocast("cpu"), np.errstate(all="raise"):
        torch.set_default_dtype(torch.float64)
        try:
            whole, before = process(), now()
            for _ in tlkit.fit_events(colours, tlkit.FitOptions(backbone="tiny", epochs=2)):
                seen.append(now() == before)
            answers = tlkit.load(plain[1]).stream(colours)
            next(answers)
            seen.append(now() == before)
            answers.close()
            assert process() == whole
        finally:
            torch.set_default_dtype(torch.float32)
    assert len(seen) > 5
    assert all(seen)


def test_a_fit_does_not_depend_on_the_numbers_drawn_before(plain, colours):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    for name, options in FITS.items():
        result = tlkit.fit(colours, backbone="tiny", out=name, **options)
        assert result.card.tensors_sha256 == plain[0][name], name


def test_importing_tlkit_changes_no_setting(tmp_path):
    import subprocess
    import sys

    program = (
        "import warnings, cv2, torch\n"
        "from PIL import Image, ImageFile\n"
        "ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = True, 7\n"
        "cv2.setNumThreads(3)\n"
        "filters = list(warnings.filters)\n"
        "import tlkit.fitting, tlkit.classifier, tlkit.data.images\n"
        "assert ImageFile.LOAD_TRUNCATED_IMAGES is True and Image.MAX_IMAGE_PIXELS == 7\n"
        "assert cv2.getNumThreads() == 3\n"
        "assert not [one for one in warnings.filters if 'PIL' in str(one)]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_a_generator_takes_what_is_sent_and_thrown_and_is_closed():
    ends = []

    @with_own_settings
    def steps():
        try:
            sent = yield torch.get_default_dtype()
            with pytest.raises(KeyError):
                yield sent
            yield "caught"
        finally:
            ends.append(torch.is_grad_enabled())
        return 5

    with torch.no_grad():
        going = steps()
        assert next(going) == torch.float32
        assert going.send(3) == 3
        assert going.throw(KeyError("a")) == "caught"
        with pytest.raises(StopIteration) as end:
            next(going)
        assert end.value.value == 5
        going = steps()
        next(going)
        going.close()
    assert ends == [True, True]


def test_settings_of_the_process_are_set_back_by_the_last_thread():
    there = {"value": "user's"}
    setting = ProcessSetting(
        read=lambda: there["value"],
        write=lambda value: there.update(value=value),
        value="own",
    )
    aside = SetAside(lambda: [setting])
    first, second = threading.Event(), threading.Event()

    def other():
        with aside:
            first.set()
            second.wait(10)

    with aside:
        thread = threading.Thread(target=other)
        thread.start()
        first.wait(10)
    assert there["value"] == "own"
    second.set()
    thread.join()
    assert there["value"] == "user's"
    with aside:
        there["value"] = "set meanwhile"
    assert there["value"] == "set meanwhile"


def test_products_set_by_torchs_newer_way_are_set_aside_too():
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("this torch has the older way alone")
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    one = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    expected = one @ one
    matmul.fp32_precision = "bf16"
    try:
        with own_settings():
            assert torch.equal(one @ one, expected)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
