import numpy as np, pytest, time
from contextlib import AsyncExitStack
from uuid import UUID
from bench.embeddings import generate_faces
from tests.integration.suggestions.album import *
from tests.integration.suggestions.conftest import *
from tests.integration.suggestions.test_find_more_cost import run_job, index
from tests.integration.suggestions.test_finding_by_centroid import questions, CENTROID
from sqlalchemy import delete
from shared.db.tables_suggestions import suggestions as st

@pytest.mark.parametrize("seed", [3,5,11])
async def test_figures(base, people, questions, seed):
    drawn = generate_faces(900, seed=seed)
    faces = await seed_library(base, drawn.vectors, qualities=[float(each) for each in drawn.quality])
    names, sizes = np.unique(drawn.truth[drawn.truth >= 0], return_counts=True)
    truth, labelled = {}, set()
    for number in names[np.argsort(-sizes)][:12]:
        rows = [int(row) for row in np.flatnonzero(drawn.truth == number)]
        person = await people.create(f"Person {number}")
        chosen = [faces.face_ids[row] for row in sorted(rows, key=lambda row: -drawn.quality[row])[:5]]
        await people.assign(person, chosen)
        labelled |= set(chosen)
        truth |= {faces.face_ids[row]: person.person_id for row in rows}
    for m in (1, CENTROID):
        async with base.database.transaction() as tx:
            await tx.execute(delete(st))
        await wait_indexed(base)
        t=time.time(); job = await questions.find_more(method=m); t=time.time()-t
        asked = summarise(await questions.list())
        right = sum(truth.get(f) == p for f, p in asked.items())
        print("FIG", seed, m, "asked", len(asked), "precision", right/len(asked), "recall", right/len(set(truth)-labelled), "cand", dict(job.result)["candidates"], round(t,2))

async def test_cost(base, people, stack, monkeypatch):
    faces = await seed_library(base, draw_people(40, 6))
    persons = [await people.create(f"Person {number}") for number in range(40)]
    for n, p in enumerate(persons):
        await people.assign(p, faces.face_ids[n*6:n*6+2])
    await index(base)
    for k in (1, 10, 20, 40):
        job, cost = await run_job(base, stack, persons[:k], monkeypatch)
        print("FIG cost", k, cost)
