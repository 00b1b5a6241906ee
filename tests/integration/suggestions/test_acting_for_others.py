"""With tokens required, the ledger names the person who answered and not the service in between."""

from __future__ import annotations

import hashlib
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from kith.suggestions.v1 import suggestions_pb2 as pb
from services.persons.server import start as start_persons
from services.suggestions.server import start as start_suggestions
from shared.config import AuthMode, AuthSettings, Settings
from shared.db.tables_persons import changes
from shared.db.tables_suggestions import reviews
from shared.errors import PermissionDenied, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.suggestions.album import People, draw_people, seed_library
from tests.integration.suggestions.asking import ask
from tests.integration.suggestions.conftest import Questions

ANNA = (("authorization", "Bearer annas"),)


def entry(subject: str, token: str, *verbs: str) -> dict[str, Any]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {"token_sha256": digest, "subject": subject, "libraries": ["*"], "verbs": list(verbs)}


def require_tokens(settings: Settings, path: Path, *service_verbs: str) -> Settings:
    """Settings under which Anna may read and write, and Kith's processes what is said."""
    path.write_text(json.dumps([entry("Änna", "annas", "read", "write"), entry("kith", "services", *service_verbs)]))
    auth = AuthSettings(mode=AuthMode.TOKENS, tokens_file=path, service_token="services")
    return settings.model_copy(update={"auth": auth})


@pytest.mark.parametrize("answer", ["accept", "reject"])
async def test_a_change_made_through_another_service_is_by_whoever_answered(
    base: Foundation, settings: Settings, stack: AsyncExitStack, tmp_path: Path, answer: str
) -> None:
    running = Running(require_tokens(settings, tmp_path / "t.json", "read", "write", "admin", "act_for_others"), stack)
    people = People(await running.server("persons", start_persons))
    questions = Questions(base, await running.server("suggestions", start_suggestions))
    faces = await seed_library(base, draw_people(1, 1))
    (mine,) = await ask(base, faces, [(0, await people.create("Bert"), 0.9)])
    if answer == "accept":
        request = pb.AcceptSuggestionRequest(suggestion_id=mine)
        suggestion = (await questions.suggestions.AcceptSuggestion(request, metadata=ANNA)).suggestion
    else:
        rejection = pb.RejectSuggestionRequest(suggestion_id=mine)
        suggestion = (await questions.suggestions.RejectSuggestion(rejection, metadata=ANNA)).suggestion
    assert suggestion.reviewed_by == "Änna"
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(changes.c.rpc, changes.c.actor).order_by(changes.c.sequence))
        reviewer = await tx.scalar(select(reviews.c.reviewer))
    by_rpc = {row.rpc.rpartition(".")[2]: row.actor for row in rows}
    assert by_rpc == {"CreatePerson": "kith", "AssignFace" if answer == "accept" else "ExcludeFace": "Änna"}
    assert reviewer == "Änna"


async def test_a_service_token_that_may_not_act_for_others_changes_nothing(
    base: Foundation, settings: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    running = Running(require_tokens(settings, tmp_path / "t.json", "read", "write", "admin"), stack)
    people = People(await running.server("persons", start_persons))
    questions = Questions(base, await running.server("suggestions", start_suggestions))
    faces = await seed_library(base, draw_people(1, 1))
    (mine,) = await ask(base, faces, [(0, await people.create("Bert"), 0.9)])
    with pytest.raises(PermissionDenied) as refused:
        async with translate_errors("suggestions"):
            await questions.suggestions.AcceptSuggestion(pb.AcceptSuggestionRequest(suggestion_id=mine), metadata=ANNA)
    assert (refused.value.reason, refused.value.metadata["verb"]) == (Reason.VERB_FORBIDDEN, "act_for_others")
    assert (await questions.get(mine)).state == pb.SUGGESTION_STATE_PENDING
