"""The sentences of the first screen: what the verdict means, by how much, and what the reader must know first."""

from collections.abc import Sequence

from distil.report.number import (
    Number,
    count,
    digits_for,
    gain,
    gain_unit,
    metric_title,
    percent,
    quality,
    quantity,
    significant,
)
from distil.report.record import RunRecord, SpeedUp, Verdict

GLOSSARY = (
    ("BEATS", "Both intervals lie above zero against every control: distillation helped."),
    ("WORSE", "Both intervals lie below zero against at least one control: distillation hurt."),
    (
        "EQUIVALENT",
        "The 90% interval against the best control lies inside the margin that the recipe names: "
        "the two are as good as each other for the recipe's purpose.",
    ),
    (
        "INCONCLUSIVE",
        "None of the above: this run cannot tell. The smallest difference that it could have shown is given.",
    ),
    ("NOT TESTED", "The recipe has no control, so nothing shows what the student would have been without a teacher."),
)


def meaning(verdict: Verdict) -> str:
    """The verdict in one plain sentence."""
    controls = "the control" if len(verdict.against) == 1 else f"each of the {len(verdict.against)} controls"
    match verdict.verdict:
        case "BEATS":
            return f"Distillation helped: the distilled student is better than {controls} on the same budget."
        case "WORSE":
            return f"Distillation hurt: the distilled student is worse than {listed(_worse_than(verdict))}."
        case "EQUIVALENT":
            return (
                "Distillation made no difference that matters: the distilled student and the best control "
                "are equal within the recipe's margin."
            )
        case "INCONCLUSIVE":
            return f"This run cannot tell whether distillation helped.{_smallest(verdict)}"
        case _:
            missing = "the recipe has no control" if verdict.distilled else "no arm learned from a teacher"
            return f"Not compared: {missing}, so this run does not show whether a teacher makes a difference."


def comparison(verdict: Verdict) -> str | None:
    """Quality of the distilled student and of the best control; None without a control."""
    if verdict.best_control is None or verdict.distilled is None:
        return None
    digits = digits_for(verdict.test_examples)
    own = quality(verdict.arms[verdict.distilled].mean, verdict.metric, digits)
    control = quality(verdict.arms[verdict.best_control].mean, verdict.metric, digits)
    end = "" if verdict.higher_is_better else "; lower is better"
    return f"{metric_title(verdict.metric)} {own} against {control} for {verdict.best_control}, the best control{end}."


def difference(verdict: Verdict) -> str | None:
    """The difference to the best control, for display: ``+5.9 percentage points``, ``0.120 bits per byte lower``."""
    if verdict.difference is None:
        return None
    unit = gain_unit(verdict.metric)
    if verdict.higher_is_better:
        return f"{gain(verdict.difference, verdict.metric, digits_for(verdict.test_examples))} {unit}"
    return f"{_size(verdict.difference, verdict)} {unit} {_way(verdict.difference)}"


def intervals(verdict: Verdict, units: str = "test examples") -> str | None:
    """Both intervals in words: over the units of the test split, and over seeds where there are several."""
    if verdict.interval is None:
        return None
    level, spoken = percent(verdict.confidence, 0), span if verdict.higher_is_better else _spoken_span
    text = f"{level} interval {spoken(verdict.interval, verdict)} over {count(verdict.test_examples)} {units}"
    if verdict.seed_interval is None:
        return f"{text}; one seed, so none over seeds"
    return f"{text}; {spoken(verdict.seed_interval, verdict)} over {len(verdict.seeds)} seeds"


def span(interval: tuple[Number, Number], verdict: Verdict) -> str:
    """``+4.8 to +7.1``, positive where the distilled student is better."""
    low, high = (gain(bound, verdict.metric, digits_for(verdict.test_examples)) for bound in interval)
    return f"{low} to {high}"


def subtraction(verdict: Verdict) -> str:
    """What the signs of differences mean."""
    unit = gain_unit(verdict.metric)
    if verdict.higher_is_better:
        return f"Distilled minus control in {unit}, positive where the distilled student is better."
    return f"Control minus distilled in {unit}, positive where the distilled student is better, that is lower."


def warnings(record: RunRecord) -> tuple[str, ...]:
    """What must be read before the verdict: a weak teacher, a failed export."""
    found = [record.verdict.teacher_flag] if record.verdict.teacher_flag else []
    found += [
        f"The teacher{'' if name == 'teacher' else f' {name}'} was still improving when its training ended: "
        "train it longer for a better student."
        for name, teacher in record.teachers.items()
        if teacher.evaluation.still_improving
    ]
    found += [
        f"The artefact {each.name} does not behave like its model: {'; '.join(each.parity.problems) or 'see parity'}."
        for each in record.exports
        if each.parity is not None and not each.parity.passed
    ]
    return tuple(found)


def notes(record: RunRecord) -> tuple[str, ...]:
    """The verdict's notes without those whose fact has its own place on the page: label budget, unfinished teacher."""
    said = ["labels"] if label_budget(record) else []
    said += ["still improving"] if any("still improving" in warning for warning in warnings(record)) else []
    return tuple(note for note in record.verdict.notes if not any(word in note for word in said))


def teacher_mistakes(record: RunRecord) -> int | None:
    """Test examples on which the first teacher is wrong: the one that fidelity is measured against."""
    first = next(iter(record.teachers.values()), None)
    errors = first.evaluation.metrics.get("errors") if first is not None else None
    return None if errors is None else int(errors)


def label_budget(record: RunRecord) -> str | None:
    """Who saw how many labels, where teacher and students did not see the same; None where they did."""
    labelled, labels = record.data["labelled"], record.nouns.labels
    teachers = record.data.get("teacher_labels") or {}
    if all(number <= labelled for number in teachers.values()):
        return None
    one = len(teachers) == 1
    said = listed(
        [f"the teacher {count(n)}" if one else f"the teacher {name} {count(n)}" for name, n in teachers.items()]
    )
    return (
        f"Students had {count(labelled)} {labels}, {said}: part of any gain is what the teacher learned "
        f"from {labels} that the students never saw."
    )


def smaller(record: RunRecord) -> str | None:
    """How much smaller the student is than the teacher; None where it is not."""
    teachers = [teacher.evaluation.num_parameters for teacher in record.teachers.values()]
    own = record.student.evaluation.num_parameters
    if len(teachers) != 1 or own == 0 or teachers[0] < 1.05 * own:
        return None
    return (
        f"The student has {quantity(own)} parameters, {significant(teachers[0] / own, 2)} times fewer than the teacher."
    )


def faster(record: RunRecord) -> str | None:
    """How much faster the artefact is than the teacher's; None unless the measurement allows the claim."""
    export = record.student_export("fp32") or record.student_export("int8")
    if export is None or export.latency is None or export.latency.speed_up is None:
        return None
    speed_up = export.latency.speed_up
    length = f" on texts of {tokens} tokens" if (tokens := export.latency.tokens) else ""
    return f"It answers {times(speed_up)} faster than the teacher{length}." if speed_up.claimed else None


def times(speed_up: SpeedUp) -> str:
    """``4.12 times (3.80 to 4.40)``."""
    low, high = speed_up.interval
    return f"{significant(speed_up.ratio)} times ({significant(low)} to {significant(high)})"


def _worse_than(verdict: Verdict) -> list[str]:
    def is_worse(control: str) -> bool:
        each = verdict.against[control]
        return each.interval[1] < 0 and (each.seed_interval is None or each.seed_interval[1] < 0)

    return [control for control in verdict.against if is_worse(control)] or ["a control"]


def _smallest(verdict: Verdict) -> str:
    if verdict.smallest_detectable is None:
        return ""
    smallest = _size(verdict.smallest_detectable, verdict)
    return f" It could have shown a difference of {smallest} {gain_unit(verdict.metric)} or more."


def _size(difference: Number, verdict: Verdict) -> str:
    """A difference without its sign."""
    return gain(abs(difference), verdict.metric, digits_for(verdict.test_examples)).lstrip("+")


def _way(difference: Number) -> str:
    """Where the distilled student stands, of a metric that is to be low."""
    return "higher" if difference < 0 else "lower"


def _spoken_span(interval: tuple[Number, Number], verdict: Verdict) -> str:
    """``0.100 to 0.140 lower``, ``0.010 higher to 0.140 lower``: of a metric that is to be low."""
    low, high = interval
    if low < 0 < high:
        return f"{_size(low, verdict)} higher to {_size(high, verdict)} lower"
    near, far = sorted(interval, key=abs)
    return f"{_size(near, verdict)} to {_size(far, verdict)} {_way(far)}"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
