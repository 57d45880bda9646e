"""``python -m holdfast_work_items``"""

from holdfast_bus import run

from .app import build_app
from .settings import WorkItemsSettings

if __name__ == "__main__":
    run(build_app(WorkItemsSettings()))
