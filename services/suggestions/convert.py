"""Messages to commands, and results to messages; nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from kith.common.v1 import types_pb2
from kith.persons.v1 import prototypes_pb2
from kith.suggestions.v1 import suggestions_pb2 as pb
from services.suggestions.domain.bulk_reviewing import Answer
from services.suggestions.domain.matching import PersonMatch
from services.suggestions.domain.model import (
    Evidence,
    ExemplarMatch,
    Suggestion,
    SuggestionMethod,
    SuggestionState,
)
from shared.errors import InvalidRequest
from shared.jobs.convert import to_timestamp


def to_suggestion(suggestion: Suggestion) -> pb.Suggestion:
    """A suggestion as a message."""
    return pb.Suggestion(
        id=str(suggestion.suggestion_id),
        library_id=suggestion.library_id,
        face_id=str(suggestion.face_id),
        asset_id=suggestion.asset_id,
        person_id=str(suggestion.person_id),
        confidence=suggestion.confidence,
        evidence=to_evidence(suggestion.evidence),
        method=pb.SuggestionMethod.Value(f"SUGGESTION_METHOD_{suggestion.method.value}"),
        state=pb.SuggestionState.Value(f"SUGGESTION_STATE_{suggestion.state.value}"),
        cluster_id=suggestion.cluster_id or "",
        create_time=to_timestamp(suggestion.created_at),
        close_time=to_timestamp(suggestion.closed_at),
        reviewed_by=suggestion.reviewed_by,
        etag=suggestion.etag,
    )


def to_evidence(evidence: Evidence) -> pb.Evidence:
    """Evidence as a message; what is unknown stays unset."""
    return pb.Evidence(
        score=evidence.score,
        margin=evidence.margin,
        runner_up_person_id=str(evidence.runner_up_person_id or ""),
        support=evidence.support,
        exemplars=[to_exemplar(exemplar) for exemplar in evidence.exemplars],
        quality=evidence.quality,
        era_score=evidence.era_score,
        same_photo=evidence.same_photo,
    )


def to_exemplar(exemplar: ExemplarMatch) -> pb.ExemplarMatch:
    """A prototype that looks like a face, as a message."""
    return pb.ExemplarMatch(
        face_id=str(exemplar.face_id),
        cosine=exemplar.cosine,
        era=types_pb2.Era.Value(f"ERA_{exemplar.era.value}") if exemplar.era else types_pb2.ERA_UNSPECIFIED,
        role=prototypes_pb2.PrototypeRole.Value(f"PROTOTYPE_ROLE_{exemplar.role.value}")
        if exemplar.role
        else prototypes_pb2.PROTOTYPE_ROLE_UNSPECIFIED,
    )


def to_candidate(match: PersonMatch) -> pb.MatchCandidate:
    """A person a face may be, as a message."""
    return pb.MatchCandidate(
        person_id=str(match.person_id),
        confidence=match.confidence,
        evidence=to_evidence(match.evidence) if match.evidence else None,
        blocked_by=[rule.value for rule in match.blocked_by],
    )


def from_states(states: Sequence[pb.SuggestionState.ValueType]) -> tuple[str, ...]:
    """States to list, in the domain's words; none given is PENDING. Raises :class:`InvalidRequest` for an unknown one."""
    named = {value: name.removeprefix("SUGGESTION_STATE_") for name, value in pb.SuggestionState.items() if value}
    if unknown := set(states) - set(named):
        raise InvalidRequest(f"states: there is no state {min(unknown)}", field="states")
    return tuple(sorted(named[state] for state in set(states))) or (SuggestionState.PENDING.value,)


def from_method(method: pb.SuggestionMethod.ValueType) -> SuggestionMethod:
    """How to look for faces; unset is by prototypes. Raises :class:`InvalidRequest` for a way that finds none by itself."""
    if method in (pb.SUGGESTION_METHOD_UNSPECIFIED, pb.SUGGESTION_METHOD_PROTOTYPES):
        return SuggestionMethod.PROTOTYPES
    if method == pb.SUGGESTION_METHOD_CENTROID:
        return SuggestionMethod.CENTROID
    raise InvalidRequest("method must be PROTOTYPES or CENTROID", field="method")


def from_answer(answer: pb.ReviewAnswer.ValueType, field: str) -> Answer:
    """Yes or no; raises :class:`InvalidRequest` naming ``field`` for neither."""
    if answer == pb.REVIEW_ANSWER_ACCEPT:
        return Answer.ACCEPT
    if answer == pb.REVIEW_ANSWER_REJECT:
        return Answer.REJECT
    raise InvalidRequest(f"{field} must be ACCEPT or REJECT", field=field)


def read_confidence(confidence: float, field: str = "min_confidence") -> float:
    """A confidence of a request; raises :class:`InvalidRequest` naming ``field`` unless it is 0..1."""
    if not 0.0 <= confidence <= 1.0:
        raise InvalidRequest(f"{field} must be 0..1", field=field)
    return confidence
