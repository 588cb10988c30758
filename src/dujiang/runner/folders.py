"""Where a task's pictures go: the folder of its batch, which need not be the batch this program was started for."""

from pathlib import Path

from dujiang.domain.batch import Batch
from dujiang.domain.task import Task
from dujiang.ports import Engine

IMAGES = "images"


def batch_folder(batch: Batch) -> Path:
    """OUT/NAME."""
    return Path(batch.out) / batch.name


class BatchFolders:
    """Folders by batch, looked up once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Path] = {}

    async def images(self, task: Task) -> Path:
        """The folder of the task's pictures."""
        if task.batch not in self._known:
            batch = await self._engine.batch(task.batch)
            assert batch is not None, "a task belongs to a stored batch"
            self._known[task.batch] = batch_folder(batch) / IMAGES
        return self._known[task.batch]
