import pytest

from benchmarks.report import details_of, page_of
from benchmarks.samples import Sample, Samples, load_samples
from userspace_proxy.errors import InputError


def test_a_failed_round_is_reported_beside_the_median_of_the_others():
    values = [{"connections": 900.0}, {"connections": 1_100.0}, {}]
    rounds = [Sample("echo", "go", n, v, "" if v else "it died") for n, v in enumerate(values)]
    samples = Samples(rounds)
    assert all("| 1,000 (it died) " in text for text in (page_of(samples), details_of(samples)))


@pytest.mark.parametrize("text", [None, "{}", "no JSON"], ids=["missing", "empty", "no-json"])
def test_a_file_without_samples_is_an_error(tmp_path, text):
    path = tmp_path / "raw.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"raw\.json: (No such file|it contains no)"):
        load_samples(path)
