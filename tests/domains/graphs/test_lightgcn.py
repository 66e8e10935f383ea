import gzip

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.domains.graphs.lightgcn import LightGCN, _Step
from netwright.domains.graphs.parts.bpr import Triples, bpr_loss, sample
from netwright.domains.graphs.parts.classic_recommenders import EASE, ItemKNN, Popularity
from netwright.domains.graphs.parts.interactions import check, hold_out, interactions, load
from netwright.domains.graphs.parts.ngcf import NGCF
from netwright.domains.graphs.parts.propagation import Propagation, adjacency
from netwright.domains.graphs.parts.ranking import full_ranking


def random_matrix(users=30, items=40, density=0.15, seed=0):
    rng = np.random.default_rng(seed)
    return check(rng.random((users, items)) < density)


def planted(seed=0, users=120, items=90, groups=3):
    """Users like the items of their own group."""
    rng = np.random.default_rng(seed)
    same = (np.arange(users)[:, None] % groups) == (np.arange(items)[None] % groups)
    return hold_out(check(rng.random((users, items)) < np.where(same, 0.35, 0.02)), 0.3, seed)


def dense_adjacency(matrix, left=False):
    users = matrix.shape[0]
    a = np.zeros((sum(matrix.shape),) * 2)
    a[:users, users:] = matrix.toarray()
    a[users:, :users] = matrix.toarray().T
    degree = a.sum(1)
    inverse = np.divide(1, degree, out=np.zeros_like(degree), where=degree > 0)
    return torch.from_numpy(
        inverse[:, None] * a if left else np.sqrt(inverse)[:, None] * a * np.sqrt(inverse)
    )


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 1.0), (0.25, 0.25, 0.25, 0.25), (0.0, 0.0, 0.0, 1.0)])
@pytest.mark.parametrize("normalisation", ["symmetric", "left"])
def test_rows_and_gradient_equal_the_dense_float64_polynomial(weights, normalisation):
    matrix = random_matrix()
    a = dense_adjacency(matrix, normalisation == "left")
    embedding = torch.randn(len(a), 5, generator=torch.Generator().manual_seed(1))
    nodes = torch.tensor([0, 3, 29, 31, 44, 69])
    exact = embedding.double().requires_grad_()
    final, power = 0, exact
    for k, weight in enumerate(weights):
        power = power if k == 0 else a @ power
        final = final + weight * power
    upstream = torch.randn(len(nodes), 5, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad((final[nodes] * upstream.double()).sum(), exact)

    ours = Propagation(adjacency(matrix, normalisation), weights)
    assert torch.allclose(ours.all(embedding).double(), final.detach(), atol=1e-5)
    assert torch.allclose(ours.rows(embedding, nodes).double(), final.detach()[nodes], atol=1e-5)
    for _ in range(2):  # the buffers are reused: a second call must not see the first
        assert torch.allclose(ours.gradient(embedding, nodes, upstream).double(), expected, atol=1e-5)


def test_a_step_writes_the_gradient_of_the_loss_with_its_regulariser():
    matrix = random_matrix()
    settings = LightGCN(dim=6, l2=0.3, lr=0.0)
    step = _Step(settings, matrix)
    batch = sample(matrix, 64, np.random.default_rng(0))
    e = step.weight.detach().double().requires_grad_()
    a, layers = dense_adjacency(matrix), [e]
    for _ in range(3):
        layers.append(a @ layers[-1])
    final, shift = sum(layers) / 4, matrix.shape[0]
    asked = (batch.users, batch.positives + shift, batch.negatives + shift)
    loss = bpr_loss(*(final[n] for n in asked))
    penalty = 0.3 * 0.5 * sum(e[n].pow(2).sum() for n in asked) / 64
    (expected,) = torch.autograd.grad(loss + penalty, e)
    assert step(batch) == pytest.approx(loss.item(), abs=1e-6)
    assert torch.allclose(step.weight.grad.double(), expected, atol=1e-6)


def test_equals_torch_geometric():
    geometric = pytest.importorskip("torch_geometric.nn")
    matrix = random_matrix()
    settings = LightGCN(dim=6)
    step = _Step(settings, matrix)
    peer = geometric.LightGCN(sum(matrix.shape), 6, 3)
    peer.embedding.weight.data.copy_(step.weight.detach())
    edges = torch.from_numpy(np.stack(adjacency(matrix).nonzero())).long()
    assert torch.allclose(step.final(), peer.get_embedding(edges), atol=1e-6)


def test_equals_the_plain_graph_network_without_its_extras():
    train, test = planted()
    fast = LightGCN(dim=8, epochs=3, lr=1e-2, batch_size=256).fit(train)
    plain = NGCF(
        dim=8,
        epochs=3,
        lr=1e-2,
        batch_size=256,
        transform=False,
        activation=False,
        interaction=False,
        dropout=0,
    ).fit(train)
    assert torch.allclose(fast.embeddings_, plain.embeddings_, atol=1e-4)
    assert fast.rank(test).recall == pytest.approx(plain.rank(test).recall, abs=0.02)


@pytest.mark.parametrize("transform", [True, False])
def test_a_layer_of_ngcf_is_its_formula_in_dense_float64(transform):
    """act((A + I) E W1 + (A E * E) W2), unit length, concatenated with the embeddings."""
    matrix = random_matrix()
    settings = NGCF(dim=5, layers=2, epochs=1, transform=transform, dropout=0.0)
    fitted = settings.fit(matrix, budget=Budget(epochs=1))
    a, e = dense_adjacency(matrix), fitted.weight_.detach().double()
    layer, kept = e, [e]
    maps = list(fitted.maps_)
    assert len(maps) == (4 if transform else 0)
    for k in range(2):
        same = lambda x: x
        first, second = (maps[2 * k].double(), maps[2 * k + 1].double()) if transform else (same, same)
        layer = first(a @ layer + layer) + second((a @ layer) * layer)
        layer = torch.where(layer > 0, layer, 0.2 * layer)
        kept.append(layer / layer.norm(dim=1, keepdim=True))
    expected = torch.cat(kept, 1).detach()
    assert torch.allclose(fitted.embeddings_.double(), expected, atol=1e-5)
    users = np.array([0, 4])
    scores = expected[users] @ expected[matrix.shape[0] :].T
    assert torch.allclose(fitted.scores(users).double(), scores, atol=1e-5)


def test_learns_planted_groups_and_is_repeatable():
    train, test = planted()
    fitted = LightGCN(dim=16, epochs=30, lr=1e-2, batch_size=256).fit(train)
    again = clone(fitted).fit(train)
    assert torch.equal(fitted.embeddings_, again.embeddings_)
    assert fitted.score(test) > Popularity().fit(train).score(test) + 0.2
    assert fitted.losses_[-1] < fitted.losses_[0]


def test_recommend_leaves_out_what_was_seen_and_follows_the_scores():
    train, _ = planted()
    fitted = LightGCN(dim=8, epochs=3, lr=1e-2, batch_size=256).fit(train)
    for user in (0, 7):
        best = fitted.recommend(user, 10)
        seen = set(train.indices[train.indptr[user] : train.indptr[user + 1]])
        scores = fitted.scores(np.array([user]))[0].numpy()
        unseen = sorted((i for i in range(train.shape[1]) if i not in seen), key=lambda i: -scores[i])
        assert list(best) == unseen[:10]
    assert fitted.recommend(np.array([0, 7]), 10).shape == (2, 10)
    pairs = np.array([[7, 3], [0, 5]])
    expected = [float(fitted.scores(np.array([u]))[0, i]) for u, i in pairs]
    assert fitted.predict(pairs) == pytest.approx(expected)


def test_budget_ends_the_training_and_hooks_hear_epochs():
    train, _ = planted()
    heard = []
    fitted = LightGCN(dim=4, epochs=50, batch_size=256).fit(
        train, budget=Budget(epochs=2), on_epoch=lambda epoch, model: heard.append((epoch, model.embeddings_))
    )
    assert len(fitted.losses_) == 2
    assert [epoch for epoch, _ in heard] == [1, 2]


def test_triples_are_uniform_over_users_and_never_wrong():
    matrix = random_matrix(6, 8, 0.4)
    triples = sample(matrix, 60_000, np.random.default_rng(0))
    dense = matrix.toarray()
    users, positives, negatives = (t.numpy() for t in triples)
    assert dense[users, positives].all()
    assert not dense[users, negatives].any()
    able = (dense.sum(1) > 0) & (dense.sum(1) < 8)
    shares = np.bincount(users, minlength=6) / len(users)
    assert shares == pytest.approx(able / able.sum(), abs=0.01)
    user = int(np.flatnonzero(able)[0])
    of_user = np.bincount(negatives[users == user], minlength=8) / (users == user).sum()
    assert of_user == pytest.approx((1 - dense[user]) / (1 - dense[user]).sum(), abs=0.02)
    assert isinstance(triples, Triples)


def test_full_ranking_equals_brute_force():
    rng = np.random.default_rng(3)
    everything = rng.random((25, 30)) < 0.3
    parts = rng.random((25, 30)) < 0.5
    train, test = check(everything & parts), check(everything & ~parts)
    scores = torch.from_numpy(rng.random((25, 30))).float()
    result = full_ranking(lambda users: scores[torch.from_numpy(users)], train, test, k=5, batch=4)
    recalls, ndcgs, precisions = [], [], []
    for user in range(25):
        wanted = set(np.flatnonzero((everything & ~parts)[user]))
        if not wanted:
            continue
        candidates = [i for i in range(30) if not (everything & parts)[user, i]]
        best = sorted(candidates, key=lambda i: -scores[user, i])[:5]
        recalls.append(len(wanted & set(best)) / len(wanted))
        precisions.append(len(wanted & set(best)) / 5)
        dcg = sum(1 / np.log2(r + 2) for r, i in enumerate(best) if i in wanted)
        ndcgs.append(dcg / sum(1 / np.log2(r + 2) for r in range(min(5, len(wanted)))))
    assert result.recall == pytest.approx(np.mean(recalls))
    assert result.ndcg == pytest.approx(np.mean(ndcgs))
    assert result.precision == pytest.approx(np.mean(precisions))
    assert result.users == len(recalls)


def test_ease_is_the_constrained_ridge_regression():
    matrix = random_matrix(40, 12, 0.3)
    fitted = EASE(l2=5.0).fit(matrix)
    x = matrix.toarray().astype(np.float64)
    for item in range(12):  # the same column by ordinary ridge on the other items
        others = [i for i in range(12) if i != item]
        gram = x[:, others].T @ x[:, others] + 5.0 * np.eye(11)
        column = np.linalg.solve(gram, x[:, others].T @ x[:, item])
        assert fitted.weights_[others, item] == pytest.approx(column, abs=1e-4)
    with pytest.raises(NotApplicable):
        EASE(limit=10).fit(matrix)


def test_item_neighbours_equal_brute_force():
    matrix = random_matrix(40, 12, 0.3)
    fitted = ItemKNN(neighbours=3, shrink=2.0).fit(matrix)
    x = matrix.toarray().astype(np.float64)
    norm = np.sqrt((x**2).sum(0))
    similarity = x.T @ x / (norm[:, None] * norm + 2.0)
    np.fill_diagonal(similarity, 0)
    for item in range(12):
        top = np.sort(similarity[item])[-3:]
        assert np.sort(fitted.similarity_.toarray()[item])[-3:] == pytest.approx(top, abs=1e-6)
        assert (fitted.similarity_.toarray()[item] > 0).sum() <= 3


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (sparse.csr_array((4, 5)), "empty"), (np.zeros(5), "matrix"), (np.array([[np.nan, 1.0]]), "NaN"),
        (np.array([[1.0, np.inf]]), "NaN"),
    ],
)  # fmt: skip
def test_bad_interactions_are_one_clear_error(bad, said):
    with pytest.raises(BadInput, match=said):
        LightGCN(epochs=1).fit(bad)


def test_the_papers_defaults_and_how_layers_are_combined():
    ours = LightGCN()
    assert (ours.dim, ours.layers, ours.lr, ours.l2, ours.batch_size) == (64, 3, 1e-3, 1e-4, 2048)
    assert ours.layer_weights() == (0.25,) * 4
    matrix, last = random_matrix(), LightGCN(dim=5, layers=2, combine="last")
    step, a = _Step(last, matrix), dense_adjacency(matrix)
    expected = a @ (a @ step.weight.detach().double())
    assert torch.allclose(step.final().double(), expected, atol=1e-5)
    with pytest.raises(BadInput, match="combine"):
        LightGCN(combine="sum").layer_weights()


def test_what_is_not_fitted_says_so():
    for model in (LightGCN(), Popularity()):
        with pytest.raises(NotFittedError):
            model.recommend(0)


def test_a_file_of_pairs_may_have_empty_lines(tmp_path):
    for name, text in (("train", "0 1 2\n\n1 0\n"), ("test", "0 0\n  \n1 2\n")):
        folder = tmp_path / "gowalla"
        folder.mkdir(exist_ok=True)
        with gzip.open(folder / f"{name}.txt.gz", "wt") as file:
            file.write(text)
    train, test = load("gowalla", tmp_path)
    assert train.toarray().tolist() == [[0, 1, 1], [1, 0, 0]]
    assert test.toarray().tolist() == [[1, 0, 0], [0, 0, 1]]


def test_bad_ids_are_one_clear_error():
    with pytest.raises(BadInput, match="item ids"):
        interactions(np.array([0, 1]), np.array([0, 9]), (2, 5))
    fitted = Popularity().fit(random_matrix())
    with pytest.raises(BadInput, match="numbered"):
        fitted.recommend(99)
    with pytest.raises(BadInput, match="k must"):
        fitted.recommend(0, 500)


def test_hold_out_takes_its_share_of_every_user():
    matrix = random_matrix(50, 60, 0.3)
    rest, taken = hold_out(matrix, 0.25, 1)
    degree = np.diff(matrix.indptr)
    assert (np.diff(taken.indptr) == np.floor(0.25 * degree)).all()
    assert ((rest + taken) != matrix).nnz == 0


@pytest.mark.data("gowalla")
def test_gowalla_is_the_published_split():
    train, test = load("gowalla")
    assert train.shape == (29_858, 40_981)
    assert train.nnz == 810_128
    assert train.multiply(test).nnz == 0
    assert np.diff(test.indptr).max() > 20


@pytest.mark.data("lastfm")
def test_lastfm_trains_and_beats_popularity():
    train, test = load("lastfm")
    assert train.shape == (1892, 4489)
    assert train.nnz == 42_135
    fitted = LightGCN(epochs=6, lr=1e-2).fit(train)
    assert fitted.score(test) > 1.3 * Popularity().fit(train).score(test)


@pytest.mark.parametrize("content", ["1 2 3\n4 x 5\n", ""], ids=["words", "empty"])
def test_broken_files_are_one_clear_error(tmp_path, content):
    (tmp_path / "lastfm").mkdir()
    for name in ("data1", "test1"):
        with gzip.open(tmp_path / "lastfm" / f"{name}.txt.gz", "wt") as file:
            file.write(content)
    with pytest.raises(BadInput, match=r"data1\.txt"):
        load("lastfm", tmp_path)


def test_files_are_read_as_they_are_written(tmp_path):
    (tmp_path / "lastfm").mkdir()
    for name, text in (("data1", "1\t3\t3.2e+05\n2\t1\t7\n"), ("test1", "2\t3\t1\n")):
        with gzip.open(tmp_path / "lastfm" / f"{name}.txt.gz", "wt") as file:
            file.write(text)
    train, test = load("lastfm", tmp_path)
    assert (train.toarray() == [[0, 0, 1], [1, 0, 0]]).all()
    assert (test.toarray() == [[0, 0, 0], [0, 0, 1]]).all()
    with pytest.raises(BadInput, match="neither"):
        load("gowalla", tmp_path)
    with pytest.raises(BadInput, match="Did you mean 'lastfm'"):
        load("lastfmm", tmp_path)
