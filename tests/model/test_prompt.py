from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevl.errors import ContextOverflow, ManifestError, PromptError
from edgevl.export import checkpoint
from edgevl.export.checkpoint import Checkpoint
from edgevl.image.tiling import plan
from edgevl.model import prompt
from edgevl.model.families import FAMILIES, Family, Layout
from edgevl.model.template import ChatTemplate
from edgevl.model.tokenizer import Tokenizer
from edgevl.types import Chunk, ImageChunk, ImagePart, Message, TextChunk, TextPart
from tests.checkpoints import CHAT_TEMPLATE, SPECIAL_TOKENS, make_weightless
from tests.processors import processor_of

N = 4  # image tokens a tile
SMOLVLM = FAMILIES["idefics3"]


def letters(path: Path) -> Tokenizer:
    """Write and load a tokenizer of bytes, "\\n\\n" merged, with the family's special tokens."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: number for number, piece in enumerate([*pieces, "ĊĊ"])}
    backend = Backend(models.BPE(vocab=vocab, merges=[("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    backend.save(str(path))
    return Tokenizer(path)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return letters(tmp_path_factory.mktemp("letters") / "tokenizer.json")


def user(text: str, n_images: int = 0) -> Message:
    return Message("user", (*[ImagePart(None)] * n_images, TextPart(text)))


def template(source: str = CHAT_TEMPLATE, **tokens: str) -> ChatTemplate:
    return ChatTemplate(source, where="chat_template.jinja", **tokens)


def build(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    grids: Sequence[tuple[int, int]] = (),
    *,
    source: str = CHAT_TEMPLATE,
    family: Family = SMOLVLM,
    context_length: int = 8192,
) -> list[Chunk]:
    return prompt.build(
        messages,
        grids,
        family=family,
        tokenizer=tokenizer,
        template=template(source),
        image_token_id=tokenizer.encode(family.image_token)[0],
        tokens_per_tile=N,
        context_length=context_length,
    )


def text_of(tokenizer: Tokenizer, chunks: Sequence[Chunk]) -> str:
    """Write chunks as text, special tokens included and each tile as [image.tile]."""
    return "".join(
        "".join(str(tokenizer._backend.id_to_token(i)).replace("Ċ", "\n").replace("Ġ", " ") for i in chunk.token_ids)
        if isinstance(chunk, TextChunk)
        else f"[{chunk.image}.{chunk.tile}]"
        for chunk in chunks
    )


class TestBuild:
    def test_text_alone_is_one_chunk(self, tokenizer: Tokenizer) -> None:
        chunks = build(tokenizer, [user("hi")])
        assert chunks == [TextChunk(tuple(tokenizer.encode("<|im_start|>User: hi<end_of_utterance>\nAssistant:")))]

    def test_an_overview_alone(self, tokenizer: Tokenizer) -> None:
        chunks = build(tokenizer, [user("hi", 1)], [(0, 0)])
        assert [chunk for chunk in chunks if isinstance(chunk, ImageChunk)] == [ImageChunk(0, 0, N)]
        assert text_of(tokenizer, chunks) == (
            "<|im_start|>User:<fake_token_around_image><global-img>[0.0]<fake_token_around_image>hi"
            "<end_of_utterance>\nAssistant:"
        )

    def test_a_grid_row_by_row_and_then_the_overview(self, tokenizer: Tokenizer) -> None:
        chunks = build(tokenizer, [user("hi", 1)], [(2, 2)])
        assert text_of(tokenizer, chunks) == (
            "<|im_start|>User:"
            "<fake_token_around_image><row_1_col_1>[0.0]<fake_token_around_image><row_1_col_2>[0.1]\n"
            "<fake_token_around_image><row_2_col_1>[0.2]<fake_token_around_image><row_2_col_2>[0.3]\n\n"
            "<fake_token_around_image><global-img>[0.4]<fake_token_around_image>"
            "hi<end_of_utterance>\nAssistant:"
        )

    def test_tiles_with_nothing_between_them(self, tokenizer: Tokenizer) -> None:
        layout = Layout(start="<", cell="{image}", row_end="", overview="{image}>", single="<{image}>")
        row = Family("plain", "closest_grid", "<image>", layout)
        chunks = build(tokenizer, [user("hi", 2)], [(1, 2), (0, 0)], family=row)
        assert "User:<[0.0][0.1][0.2]><[1.0]>hi" in text_of(tokenizer, chunks)

    def test_newlines_before_the_overview_are_one_token_where_the_tokenizer_merges_them(
        self, tokenizer: Tokenizer
    ) -> None:
        merged = tokenizer.encode("\n\n")
        assert len(merged) == 1
        texts = [
            chunk.token_ids for chunk in build(tokenizer, [user("hi", 1)], [(1, 2)]) if isinstance(chunk, TextChunk)
        ]
        assert merged[0] in texts[2]

    def test_several_images_in_several_turns(self, tokenizer: Tokenizer) -> None:
        messages = [
            Message("system", (TextPart("Be brief."),)),
            user("one", 1),
            Message("assistant", (TextPart("a cat"),)),
            Message("user", (TextPart("and "), ImagePart(None), TextPart("or"), ImagePart(None), TextPart("?"))),
        ]
        chunks = build(tokenizer, messages, [(0, 0), (1, 2), (0, 0)])
        places = [(chunk.image, chunk.tile) for chunk in chunks if isinstance(chunk, ImageChunk)]
        assert places == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0)]
        text = text_of(tokenizer, chunks)
        assert text.startswith("<|im_start|>System: Be brief.<end_of_utterance>\nUser:<fake_token_around_image>")
        assert "Assistant: a cat<end_of_utterance>\nUser: and <fake_token_around_image>" in text
        assert text.endswith("[2.0]<fake_token_around_image>?<end_of_utterance>\nAssistant:")

    @given(
        st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)) | st.just((0, 0)), max_size=3),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip),
    )
    def test_chunks_hold_every_tile_and_the_whole_text(
        self, tokenizer: Tokenizer, grids: list[tuple[int, int]], question: str
    ) -> None:
        chunks = build(tokenizer, [user(question, len(grids))], grids)
        tiles = [(chunk.image, chunk.tile, chunk.n_tokens) for chunk in chunks if isinstance(chunk, ImageChunk)]
        assert tiles == [(i, tile, N) for i, (rows, cols) in enumerate(grids) for tile in range(rows * cols + 1)]
        assert all(chunk.n_tokens for chunk in chunks)
        image_token_id = tokenizer.encode("<image>")[0]
        text = [token for chunk in chunks if isinstance(chunk, TextChunk) for token in chunk.token_ids]
        assert image_token_id not in text
        assert tokenizer.decode(text).endswith(question + "\nAssistant:")


class TestRefusals:
    @pytest.mark.parametrize("question", ["", "   ", "\n\t"])
    def test_an_empty_question(self, tokenizer: Tokenizer, question: str) -> None:
        with pytest.raises(PromptError) as caught:
            build(tokenizer, [user(question, 1)], [(0, 0)])
        assert str(caught.value) == "the question is empty; write what you want to know"

    def test_an_image_alone(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(PromptError, match="the question is empty"):
            build(tokenizer, [Message("user", (ImagePart(None),))], [(0, 0)])

    def test_a_conversation_that_ends_with_an_answer(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(PromptError, match="the question is empty"):
            build(tokenizer, [user("hi"), Message("assistant", (TextPart("yes"),))])

    def test_no_messages(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(PromptError) as caught:
            build(tokenizer, [])
        assert str(caught.value) == "there are no messages; give at least one question"

    def test_the_reserved_token_in_any_text(self, tokenizer: Tokenizer) -> None:
        for messages in (
            [user("what is <image>?")],
            [Message("system", (TextPart("<image>"),)), user("hi")],
            [user("hi"), Message("assistant", (TextPart("an <image>"),)), user("more")],
        ):
            with pytest.raises(PromptError) as caught:
                build(tokenizer, messages)
            assert str(caught.value) == ("the text contains '<image>', which this model reserves for images; remove it")

    def test_the_reserved_token_put_together_from_two_parts(self, tokenizer: Tokenizer) -> None:
        message = Message("user", (TextPart("<im"), TextPart("age>")))
        with pytest.raises(PromptError, match="the chat template wrote 1 images for the 0 given"):
            build(tokenizer, [message])

    def test_a_template_that_leaves_images_out(self, tokenizer: Tokenizer) -> None:
        source = "{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
        with pytest.raises(PromptError) as caught:
            build(tokenizer, [user("hi", 2)], [(0, 0), (1, 2)], source=source)
        assert str(caught.value) == (
            "the chat template wrote 0 images for the 2 given; put images into user messages only"
        )

    def test_a_tokenizer_without_the_image_token(self, tmp_path: Path) -> None:
        plain = letters(tmp_path / "tokenizer.json")
        image_token_id = 10**6
        with pytest.raises(PromptError) as caught:
            prompt.build(
                [user("hi", 1)],
                [(0, 0)],
                family=SMOLVLM,
                tokenizer=plain,
                template=template(),
                image_token_id=image_token_id,
                tokens_per_tile=N,
                context_length=8192,
            )
        assert str(caught.value) == "the tokenizer lost image tokens; family row and tokenizer disagree"

    def test_a_tokenizer_whose_image_token_means_something_else(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(PromptError) as caught:
            prompt.build(
                [user("hi", 1)],
                [(0, 0)],
                family=SMOLVLM,
                tokenizer=tokenizer,
                template=template(),
                image_token_id=tokenizer.encode("<global-img>")[0],
                tokens_per_tile=N,
                context_length=8192,
            )
        assert str(caught.value) == (
            "the tokenizer does not keep image tokens apart; family row and tokenizer disagree"
        )


class TestTemplate:
    def test_gets_the_messages_and_the_tokens(self) -> None:
        source = (
            "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m.content[-1].text }};{% endfor %}{{ eos_token }}"
        )
        assert template(source, bos_token="<s>", eos_token="</s>").render([user("hi", 1)]) == "<s>user=hi;</s>"

    def test_is_asked_for_an_answer(self) -> None:
        assert template("{{ add_generation_prompt }}").render([user("hi")]) == "True"

    def test_blocks_leave_no_blank_lines(self) -> None:
        assert template("  {% if true %}\n  yes\n  {% endif %}\nno").render([user("hi")]) == "  yes\nno"

    def test_loops_may_be_left(self) -> None:
        source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        assert template(source).render([user("hi")]) == "01"

    def test_json_is_plain(self) -> None:
        source = '{{ {"a": "<é>"} | tojson }}'
        assert template(source).render([user("hi")]) == '{"a": "<é>"}'

    def test_the_generation_tag_is_its_content(self) -> None:
        assert template("a{% generation %}b{{ 1 + 1 }}{% endgeneration %}c").render([user("hi")]) == "ab2c"

    def test_namespaces_keep_values_out_of_loops(self) -> None:
        source = "{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
        assert template(source).render([user("hi")]) == "3"

    def test_the_date_is_there(self) -> None:
        year = template("{{ strftime_now('%Y') }}").render([user("hi")])
        assert len(year) == 4
        assert year.isdigit()

    @pytest.mark.parametrize(
        "source",
        [
            "{% if %}",
            "{{ ",
            "{% unknown %}",
            "{{ 'a' | nosuchfilter }}",
            "{% break %}",
            "".join(f"{{% for i{n} in [1] %}}" for n in range(30)) + "{% endfor %}" * 30,
            "{% if true %}" * 200 + "{% endif %}" * 200,
            "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
            "{{ 10 ** 5000 }}",
            "{{ " + "1" * 5000 + " }}",
        ],
        ids=lambda source: source[:20],
    )
    def test_one_that_does_not_compile_names_its_file(self, source: str) -> None:
        with pytest.raises(ManifestError) as caught:
            template(source)
        message = str(caught.value)
        assert message.startswith("chat_template.jinja: is not a valid chat template (")
        assert message.endswith("); export the model again")
        assert "\n" not in message

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
            ("{{ raise_exception('two\\n  lines') }}", "two lines"),
            ("{{ nothing.here }}", "'nothing' is undefined"),
            ("{{ 1 / 0 }}", "division by zero"),
            ("{{ messages[9].role }}", "list object has no element 9"),
            ("{{ messages[0].content + 1 }}", 'can only concatenate list (not "int") to list'),
        ],
    )
    def test_one_that_raises_is_quoted_in_one_line(self, source: str, reason: str) -> None:
        with pytest.raises(PromptError) as caught:
            template(source).render([user("hi")])
        assert str(caught.value) == (
            f"chat_template.jinja: the model's chat template refused the messages ({reason}); "
            "check their roles and order"
        )

    @pytest.mark.parametrize(
        "source",
        [
            "{{ ''.__class__.__mro__[-1].__subclasses__() }}",
            "{{ messages.__class__ }}{{ messages.__class__.__name__ }}",
            "{{ ''['__class__'].__mro__ }}",
            "{{ (''|attr('__class__')).__mro__ }}",
            "{{ raise_exception.__globals__['json'] }}",
            "{{ strftime_now.__globals__ }}{{ strftime_now.__globals__.x }}",
            "{{ '{0.__class__.__mro__}'.format('') }}",
            "{{ messages.append(1) }}",
            "{{ messages[0].update(role='system') }}",
            "{{ range(10 ** 9) | list }}",
            "{% for i in range(10 ** 12) %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% set ns = namespace(__html__=1) %}",
            "{% set ns = namespace() %}{% set ns.__html__ = 1 %}",
            "{% include 'pyproject.toml' %}",
            "{% import 'os' as os %}",
        ],
    )
    def test_one_that_reaches_out_is_refused(self, source: str) -> None:
        messages = [user("hi")]
        with pytest.raises(PromptError) as caught:
            template(source).render(messages)
        assert str(caught.value).startswith("chat_template.jinja: the model's chat template refused the messages (")
        assert "\n" not in str(caught.value)
        assert messages == [user("hi")]


class TestLikeTransformers:
    """Token ids equal those of each family's processor in transformers, for published settings and tokenizers."""

    PUBLISHED: ClassVar[dict[str, str]] = {
        # folder of the settings: folder of the tokenizer
        "smolvlm-256m": "smolvlm-256m",
        "llava-1.5-7b": "llava-1.5",
        "internvl3-1b": "qwen2.5-vl",  # the same vocabulary; the family's own tokens are added
    }

    @pytest.fixture(scope="class", params=PUBLISHED)
    @classmethod
    def pair(
        cls, request: pytest.FixtureRequest, shared_dir: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Any, Checkpoint, Tokenizer]:
        pytest.importorskip("transformers")
        folder = make_weightless(
            tmp_path_factory.mktemp("checkpoint"),
            shared_dir / "families" / request.param,
            shared_dir / "tokenizers" / cls.PUBLISHED[request.param],
        )
        return processor_of(folder), checkpoint.read(folder), Tokenizer(folder / "tokenizer.json")

    @pytest.mark.parametrize(
        "turns",
        [
            [("user", ["What is the capital of France?"])],
            [("system", ["Answer in one word."]), ("user", ["Is this <b>bold</b>? 北京\n\n  spaces  "])],
            [("user", [(64, 48), "What's here?"])],
            [("user", [(512, 512), "What's here?"])],
            [("user", [(300, 1400), "\nRead it."])],
            [("user", ["Compare ", (480, 640), " with ", (64, 64), "."])],
            [
                ("user", [(480, 640), (900, 200), "What is new in the second picture?"]),
                ("assistant", ["A red car."]),
                ("user", ["And the first?"]),
            ],
        ],
    )
    def test_ids(self, pair: tuple[Any, Checkpoint, Tokenizer], turns: list[tuple[Any, list[Any]]]) -> None:
        processor, read, tokenizer = pair
        sizes = [part for _, parts in turns for part in parts if isinstance(part, tuple)]
        images = [np.zeros((*size, 3), np.uint8) for size in sizes]
        theirs = [
            {
                "role": role,
                "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in parts],
            }
            for role, parts in turns
        ]
        text = processor.apply_chat_template(theirs, add_generation_prompt=True)
        expected = processor(text=text, images=images or None, return_tensors="np")
        ours = [
            Message(role, tuple(TextPart(p) if isinstance(p, str) else ImagePart(None) for p in parts))
            for role, parts in turns
        ]
        family = FAMILIES[read.row.family]
        chunks = prompt.build(
            ours,
            [plan(size, read.image, family.tiling, "high").grid for size in sizes],
            family=family,
            tokenizer=tokenizer,
            template=template(read.chat_template, bos_token=read.bos_token, eos_token=read.eos_token),
            image_token_id=read.image_token_id,
            tokens_per_tile=read.image.tokens_per_tile,
            context_length=read.context_length,
        )
        ids = [
            token
            for chunk in chunks
            for token in (chunk.token_ids if isinstance(chunk, TextChunk) else [read.image_token_id] * chunk.n_tokens)
        ]
        assert ids == expected["input_ids"][0].tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("caf\udce9?", "the question is no UTF-8 text: its character 4 is byte 0xE9; write it in UTF-8"),
        ("\ud83d?", "the question is no UTF-8 text: its character 1 is U+D83D; write it in UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(text: str, words: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError) as caught:
        build(tokenizer, [user(text)])
    assert str(caught.value) == words
    with pytest.raises(PromptError, match="the system text is no UTF-8 text: its character 1"):
        build(tokenizer, [Message("system", (TextPart("\udce9"),)), user("?")])


class Counting:
    """A tokenizer that counts the characters it is given; words are tokens."""

    def __init__(self) -> None:
        self.n_characters = 0

    def encode(self, text: str) -> list[int]:
        self.n_characters += len(text)
        return [1] * len(text.split())

    encode_prompt = encode


def test_a_text_far_too_long_is_refused_by_its_beginning() -> None:
    tokenizer: Any = Counting()
    with pytest.raises(ContextOverflow) as caught:
        prompt._check_length("why? " * 10**5, [user("")], tokenizer, 100)
    assert str(caught.value).endswith("tokens, but only 99 fit into this model's context; shorten the text")
    assert caught.value.n_tokens >= 200
    assert tokenizer.n_characters == 1600


def test_characters_alone_refuse_nothing() -> None:
    tokenizer: Any = Counting()
    prompt._check_length(" " * 10**6 + "why?", [user("")], tokenizer, 100)


def test_of_a_conversation_another_one_is_begun() -> None:
    tokenizer: Any = Counting()
    turns = [user("?"), Message("assistant", (TextPart("!"),)), user("?")]
    with pytest.raises(ContextOverflow, match=r"begin a new conversation \(in `edgevl chat`: /reset\)"):
        prompt._check_length("why? " * 10**5, turns, tokenizer, 100)
