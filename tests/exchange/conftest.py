from browser import page, site, web_runtime  # noqa: F401
from exports import exported, networks  # noqa: F401
