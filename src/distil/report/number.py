"""Numbers as a reader wants them: sensible digits, SI sizes, a real minus sign, a dash where there is none."""

import math
import re

Number = int | float  # JSON from elsewhere may write 1.0 as 1
ABSENT = "–"
MINUS = "−"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SI_PREFIXES = ("", "k", "M", "G", "T")
FRACTION = re.compile(
    r"(.+_)?(accuracy|f1|precision|recall|exact_match|bleu|chrf)|hit_at_\d+"
    r"|expected_calibration_error|agreement_with_teacher|inherited_errors"
)
LOWER_IS_BETTER = re.compile(r"perplexity|bits_per_|nats_per_|likelihood|error|brier|^kl_")
TO_A_PLACE = re.compile(r"bits_per_|spearman|reciprocal_rank")
COUNTS = frozenset({"errors", "tokens", "bytes"})
BITS_DIGITS = 4  # significant ones: models differ in the third
GAIN_DIGITS = 4  # decimal places of differences in metrics of about 1
WORDS = {"f1": "F1", "kl": "KL", "brier": "Brier", "bleu": "BLEU", "chrf": "chrF", "spearman": "Spearman"}
SMALLEST_WRITTEN_OUT = 10_000
EXAMPLES_FOR_TWO_DIGITS = 5_000
MOST_DIGITS = 3


def is_absent(value: Number | None) -> bool:
    """True for None and for values that are not finite: both are shown as a dash."""
    return value is None or not math.isfinite(value)


def digits_for(num_examples: int) -> int:
    """Decimal places of a percentage measured on that many examples; more would only show noise."""
    return 2 if num_examples >= EXAMPLES_FOR_TWO_DIGITS else 1


def percent(fraction: Number | None, digits: int = 1) -> str:
    """``0.959`` -> ``95.9%``. What is not quite all or nothing is never rounded to 100% or 0%."""
    if fraction is None or is_absent(fraction):
        return ABSENT
    while digits < MOST_DIGITS and 0 < fraction < 1 and round(100 * fraction, digits) in (0, 100):
        digits += 1
    if 0 < fraction < 0.5 * 10 ** -(MOST_DIGITS + 2):
        return f"<{10.0**-MOST_DIGITS:g}%"
    return _signed(f"{100 * fraction:.{digits}f}") + "%"


def rough_percent(fraction: Number) -> str:
    """A whole percentage for small places: what is nearly nothing or nearly all is ``<1%`` or ``>99%``."""
    if 0 < fraction < 0.005:
        return "<1%"
    return ">99%" if 0.995 < fraction < 1 else percent(fraction, 0)


def points(difference: Number | None, digits: int = 1) -> str:
    """A difference of two fractions in percentage points with its sign: ``0.059`` -> ``+5.9``."""
    if difference is None or is_absent(difference):
        return ABSENT
    text = f"{100 * difference:+.{digits}f}"
    return _signed(text.lstrip("+-") if float(text) == 0 else text)


def significant(value: Number | None, digits: int = 3) -> str:
    """Significant digits, with a power of ten only where it must be: ``0.01234`` -> ``0.0123``, ``2.1 × 10⁻⁶``."""
    if value is None or is_absent(value):
        return ABSENT
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # 0.9999 has the magnitude of 1
    magnitude = math.floor(math.log10(abs(rounded)))
    if magnitude < -4 or magnitude > 6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return _signed(f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}")
    return _signed(f"{value:,.{max(0, digits - 1 - magnitude)}f}")


def count(value: Number | None) -> str:
    """A whole number with thousands separated: ``12345`` -> ``12,345``."""
    return ABSENT if value is None or is_absent(value) else f"{value:,.0f}"


def quantity(value: Number | None) -> str:
    """A count in SI form once it is long: ``4810`` -> ``4,810``, ``2395210`` -> ``2.40 M``."""
    if value is None or is_absent(value):
        return ABSENT
    return count(value) if abs(value) < SMALLEST_WRITTEN_OUT else _with_prefix(value)


def size(num_bytes: Number | None) -> str:
    """Bytes in SI units: ``19240`` -> ``19.2 kB``."""
    return ABSENT if num_bytes is None or is_absent(num_bytes) else _with_prefix(num_bytes) + "B"


def size_tick(num_bytes: Number) -> str:
    """A round size on an axis: ``30000`` -> ``30 kB``."""
    power = min(len(SI_PREFIXES) - 1, max(0, math.floor(math.log10(num_bytes) + 1e-9) // 3))
    return f"{num_bytes / 1000**power:g}\u00a0{SI_PREFIXES[power]}B"


def milliseconds(value: Number | None) -> str:
    """A time with its unit: ``0.0213`` -> ``21.3 µs``, ``3.4`` -> ``3.40 ms``."""
    if value is None or is_absent(value):
        return ABSENT
    if value < 0.1:
        return f"{significant(1000 * value)}\u00a0µs"
    return f"{significant(value)}\u00a0ms" if value < 1000 else f"{significant(value / 1000)}\u00a0s"


def is_fraction(metric: str) -> bool:
    """Whether a metric is a share, 0..1, which is read in percent. Correlations and reciprocal ranks are not."""
    return FRACTION.fullmatch(metric) is not None


def is_lower_better(metric: str) -> bool:
    """Whether less of a metric is better, by its name."""
    return LOWER_IS_BETTER.search(metric) is not None


def quality(value: Number | None, metric: str, digits: int = 1) -> str:
    """One value of a metric: in percent where it is a fraction, otherwise whole or with significant digits."""
    if metric in COUNTS:
        return count(value)
    if is_fraction(metric):
        return percent(value, digits)
    return significant(value, BITS_DIGITS) if "bits_per_" in metric else significant(value)


def gain(difference: Number | None, metric: str, digits: int = 1) -> str:
    """A difference in a metric with its sign: percentage points where the metric is a fraction."""
    if is_fraction(metric):
        return points(difference, digits)
    if difference is not None and not is_absent(difference) and TO_A_PLACE.search(metric):
        text = f"{difference:+.{GAIN_DIGITS}f}"
        return _signed(text.lstrip("+-") if float(text) == 0 else text)
    text = significant(difference)
    return f"+{text}" if difference is not None and difference > 0 and text != ABSENT else text


def gain_unit(metric: str) -> str:
    """What ``gain`` counts in."""
    if is_fraction(metric):
        return "percentage points"
    return "bits per byte" if "bits_per_byte" in metric else metric_name(metric)


def metric_name(metric: str) -> str:
    """``negative_log_likelihood`` -> ``negative log-likelihood``, ``entity_f1`` -> ``entity F1``."""
    return " ".join(WORDS.get(word, word) for word in metric.split("_")).replace("log likelihood", "log-likelihood")


def metric_title(metric: str) -> str:
    """The name at the head of a column or chart: ``Entity F1``."""
    name = metric_name(metric)
    return name if name.startswith("chrF") else name[:1].upper() + name[1:]


def plain(value: Number) -> str:
    """A setting as a person would write it: ``4.0`` -> ``4``."""
    return f"{value:g}"


def _with_prefix(value: Number) -> str:
    power = 0
    while abs(value) >= 999.5 and power < len(SI_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    number = f"{value:.0f}" if power == 0 else significant(value)
    return f"{number}\u00a0{SI_PREFIXES[power]}"


def _signed(text: str) -> str:
    return text.replace("-", MINUS, 1) if text.startswith("-") else text
