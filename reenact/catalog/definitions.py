"""The definitions that agents think with, whosever they are, as the log names them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ..actors.image import State as ImageState
from ..adapters.tools.registry import Tools
from ..events import codec
from ..events.errors import NotFound
from ..events.image import ImageConfig, ImageCreated, ImageUpdated
from ..flow.kernel import Kernel
from ..identity.pane import Pane
from .kept import Kept


class Definitions:
    """Found at hand, else in the log. kept: what is at hand, by scope."""

    def __init__(self, kernel: Kernel, kept: Mapping[str, Kept]) -> None:
        self._kernel = kernel
        self._kept = kept

    async def image(self, image_id: str, scope: str) -> ImageState:
        """The state of an image that was there once: what is owed to a deleted one is still settled."""
        kept = self._kept.get(scope)
        known = None if kept is None else kept.images.get(image_id)
        state: ImageState = known or (await self._kernel.peek(f"image-{image_id}", scope=scope))[0]
        return state

    async def config(self, image_id: str, version: int, scope: str) -> ImageConfig:
        """The definition that an image had at a version: what the log says that its model is called with."""
        state = await self.image(image_id, scope)
        if state.version == version or not version:
            return state.config
        for stored in await asyncio.to_thread(Pane(self._kernel.log, scope).read, f"image-{image_id}"):
            for recorded in codec.unpack(stored):
                data = recorded.data
                if isinstance(data, ImageCreated) and version == 1:
                    return data.config
                if isinstance(data, ImageUpdated) and data.version == version:
                    return data.config
        raise NotFound(f"Image {image_id} never had a version {version}.")


def tools_of(tools: Tools, config: ImageConfig) -> Tools:
    """Those of a runtime's tools that a definition names."""
    return tools if config.tools is None else tools.only(config.tools)
