import pytest
from pydantic import TypeAdapter, ValidationError

from distil.tasks.config import ImageClassificationConfig, TaskConfig

TASK: TypeAdapter[TaskConfig] = TypeAdapter(TaskConfig)


def test_a_word_stands_for_its_task() -> None:
    assert TASK.validate_python("image-classification") == ImageClassificationConfig()
    assert TASK.validate_python({"kind": "image-classification"}) == ImageClassificationConfig()


@pytest.mark.parametrize("wrong", ["regression", {"kind": "image-classification", "classes": 3}])
def test_another_task_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        TASK.validate_python(wrong)
