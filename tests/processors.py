"""transformers' own processors, with the PIL image processors, for the checkpoints of `tests.checkpoints`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def processor_of(checkpoint: Path) -> Any:
    """Return the processor of a checkpoint folder by the `model_type` of its config.json."""
    return PROCESSORS[_json(checkpoint / "config.json")["model_type"]](checkpoint, _template(checkpoint))


def _idefics3(checkpoint: Path, template: str) -> Any:
    from transformers import AutoTokenizer, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
        image_seq_len=_json(checkpoint / "processor_config.json")["image_seq_len"],
        chat_template=template,
    )


def _llava(checkpoint: Path, template: str) -> Any:
    """Take tokenizer.json as it stands.

    transformers 5 rebuilds a LlamaTokenizer without the normaliser that tokenizer.json has: it then puts no space
    before text that follows a special token, where the model was trained with one, and llama.cpp puts one.
    """
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    settings = _json(checkpoint / "processor_config.json")
    names = ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy")
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil.from_pretrained(checkpoint),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(checkpoint),
        chat_template=template,
        **{name: settings[name] for name in names},
    )


def _internvl(checkpoint: Path, template: str) -> Any:
    from transformers import AutoTokenizer, InternVLProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    class ImagesAlone(InternVLProcessor):  # type: ignore[misc]
        """Without the video processor, which needs torchvision."""

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return argument is None or super().check_argument_for_proper_class(name, argument)

    return ImagesAlone(
        image_processor=GotOcr2ImageProcessorPil.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
        image_seq_length=_json(checkpoint / "processor_config.json")["image_seq_length"],
        chat_template=template,
    )


PROCESSORS: dict[str, Callable[[Path, str], Any]] = {"idefics3": _idefics3, "llava": _llava, "internvl": _internvl}


def _json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _template(checkpoint: Path) -> str:
    jinja = checkpoint / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    return str(_json(checkpoint / "chat_template.json")["chat_template"])
