"""`dynamics.pt`: round trip, and refusal of what is damaged, foreign or does not fit."""

import re
from dataclasses import replace

import pytest
import torch
from systems import CPU, SMALL, SPEC, linear_gaussian, small_ensemble

from mbkit.dynamics import files
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.storage import write_tensors
from mbkit.types import EnvSpec, TaskKnowledge, Transition


def test_save_and_load_give_the_same_model(tmp_path):
    ensemble, path = small_ensemble(termination=None), tmp_path / "dynamics.pt"
    ensemble.save(path, env="toy")
    other = Ensemble(SPEC, SMALL)
    places = [p.data_ptr() for p in other.network.parameters()]
    assert other.load(path) == {"env": "toy"}
    assert places == [p.data_ptr() for p in other.network.parameters()]
    obs, action = torch.randn(6, 3), torch.zeros(6, 2)
    assert torch.equal(other.predict(obs, action).mean, ensemble.predict(obs, action).mean)
    assert other.fitted == ensemble.fitted
    assert len(other.fitted["fingerprint"]) == 64
    torch.manual_seed(1)
    out = ensemble.step(obs, action).obs
    torch.manual_seed(1)
    assert torch.equal(other.step(obs, action).obs, out)
    assert files.config(path, EnsembleConfig(lr=0.5)) == replace(EnsembleConfig(lr=0.5), members=4, elites=3, hidden=(16, 16))
    assert [p.name for p in tmp_path.iterdir()] == ["dynamics.pt"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: Ensemble(EnvSpec(4, 2, CPU), SMALL), "observation dimensions must be 4, the file has 3"),
        (lambda: Ensemble(EnvSpec(3, 1, CPU), SMALL), "action dimensions"),
        (lambda: Ensemble(SPEC, replace(SMALL, scale_targets=False)), "dynamics.scale_targets must be False, the file has True"),
        (lambda: Ensemble(SPEC, replace(SMALL, hidden=(16,))), "dynamics.hidden"),
        (lambda: Ensemble(SPEC, SMALL, TaskKnowledge(absolute=(1,))), "absolute dimensions"),
        (lambda: Ensemble(SPEC, SMALL, TaskKnowledge(preprocess=torch.sin)), "observation processing"),
        (lambda: Ensemble(SPEC, replace(SMALL, termination="learned")), "termination"),
    ],
)
def test_load_refuses_a_file_that_does_not_fit(tmp_path, other, named):
    small_ensemble(fit=False).save(tmp_path / "dynamics.pt")
    with pytest.raises(UserError, match=named):
        other().load(tmp_path / "dynamics.pt")


def test_load_refuses_a_file_for_other_parts_of_the_action(tmp_path):
    several = EnvSpec(3, 5, CPU, True, (3, 2))
    Ensemble(several, SMALL).save(tmp_path / "dynamics.pt")
    Ensemble(several, SMALL).load(tmp_path / "dynamics.pt")
    for spec, expected in ((several._replace(parts=()), "True"), (several._replace(parts=(2, 3)), r"\[2, 3\]")):
        with pytest.raises(UserError, match=rf"discrete actions must be {expected}, the file has \[3, 2\]"):
            Ensemble(spec, SMALL).load(tmp_path / "dynamics.pt")


def test_save_refuses_an_unwritable_place(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        small_ensemble(fit=False).save(tmp_path / "no" / "such" / "dynamics.pt")


def test_load_refuses_truncated_foreign_and_missing_files(tmp_path):
    path = tmp_path / "dynamics.pt"
    with pytest.raises(UserError, match="does not exist"):
        small_ensemble(fit=False).load(path)
    small_ensemble(fit=False).save(path)
    content = path.read_bytes()
    torch.save({"weights": torch.zeros(2)}, path)
    for bad in (content[: len(content) // 2], b"", b"hello", path.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"cannot be read: expected 'mbkit\.dynamics/1', found a damaged or foreign file"):
            small_ensemble(fit=False).load(path)
    with pytest.raises(UserError, match=r"is a directory: expected FILE, e\.g\. .*/dynamics\.pt"):
        small_ensemble(fit=False).load(tmp_path)


def test_load_of_a_flipped_bit_is_refused_or_harmless(tmp_path):
    tiny = replace(SMALL, members=2, elites=1, hidden=(2,))
    whole, path = small_ensemble(tiny), tmp_path / "dynamics.pt"
    whole.save(path, env="toy")
    content, right = path.read_bytes(), files.read(path)["state"]
    harmless, other = 0, Ensemble(SPEC, tiny)
    flips = [(i, i % 8) for i in range(0, len(content), 41)]
    for i, bit in flips:
        path.write_bytes(content[:i] + bytes([content[i] ^ (1 << bit)]) + content[i + 1 :])
        try:
            other.load(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            harmless += 1  # padding was hit
            assert all(torch.equal(v, right[k]) for k, v in other.network.state_dict().items())
    assert harmless < len(flips) / 2
    for i in (m.start() for m in re.finditer(b"PK\x01\x02", content)):  # "is a directory", which no checksum covers
        path.write_bytes(content[: i + 38] + b"\x10" + content[i + 39 :])
        with pytest.raises(UserError, match="damaged"):
            other.load(path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda c: c.pop("fits"), "damaged or foreign file"),
        (lambda c: c.pop("cfg"), "damaged or foreign file"),
        (lambda c: c.pop("state"), "damaged or foreign file"),
        (lambda c: c.update(state=[1]), "damaged or foreign file"),
        (lambda c: c["state"].pop("inputs.mean"), r"inputs\.mean must be a tensor of shape \(5,\), the file has none"),
        (lambda c: c["state"].update({"net.bias.0": torch.zeros(1)}), r"net\.bias\.0 must .* \(4, 1, 16\), the file has \(1,\)"),
        (lambda c: c["state"].update({"net.bias.0": 3}), r"net\.bias\.0 must"),
        (
            lambda c: c["state"]["net.weight.1"].view(-1)[3:4].fill_(torch.nan),
            r"dynamics\.pt' holds .* diverged: net\.weight\.1 has numbers",
        ),
        (lambda c: c["state"]["logvar_bounds"].fill_(-torch.inf), r"logvar_bounds has numbers that are not finite"),
        (lambda c: c["state"].update(elites=torch.tensor([0, 1])), r"elites must .* \(3,\), the file has \(2,\)"),
        (lambda c: c["state"].update(elites=torch.tensor([0, 1, 1])), r"3 different members of 0\.\.3, the file has \[0, 1, 1\]"),
        (lambda c: c["state"].update(elites=torch.tensor([0, 1, 4])), r"3 different members of 0\.\.3"),
        (lambda c: c["state"].update(elites=torch.tensor([-1, 1, 2])), r"3 different members of 0\.\.3"),
        (lambda c: c["state"].update(elites=torch.tensor([0.0, 1.5, 2])), r"3 different members of 0\.\.3"),
    ],
)
def test_load_refuses_a_wrong_part_and_leaves_the_model_alone(tmp_path, damage, named):
    path, ensemble = tmp_path / "dynamics.pt", small_ensemble(fit=False)
    small_ensemble().save(path)
    content = files.read(path)
    damage(content)
    torch.save(content, path)
    before = {k: v.clone() for k, v in ensemble.network.state_dict().items()}
    with pytest.raises(UserError, match=named):
        ensemble.load(path)
    assert all(torch.equal(v, ensemble.network.state_dict()[k]) for k, v in before.items())


def test_save_writes_the_networks_state_under_its_own_names(tmp_path):
    ensemble = small_ensemble()
    ensemble.save(tmp_path / "dynamics.pt")
    content = files.read(tmp_path / "dynamics.pt")
    layers = {f"net.{part}.{n}" for part in ("weight", "bias") for n in range(3)}
    normalisers = {f"{name}.{part}" for name in ("inputs", "targets") for part in ("mean", "std")} | {"inputs.low", "inputs.high"}
    assert set(content["state"]) == layers | normalisers | {"logvar_bounds", "elites", "log_factor", "levels"}
    assert all(torch.equal(v, ensemble.network.state_dict()[k]) for k, v in content["state"].items())
    assert content["format"] == "mbkit.dynamics/1"


def test_ensemble_config_load_takes_weights_and_structure_from_the_file(tmp_path):
    path = tmp_path / "dynamics.pt"
    ensemble = small_ensemble()
    ensemble.save(path)
    other = Ensemble(SPEC, EnsembleConfig(lr=0.5, load=str(path)))
    assert other.cfg == replace(EnsembleConfig(lr=0.5, load=str(path)), members=4, elites=3, hidden=(16, 16))
    assert other.fitted == ensemble.fitted
    obs, action = torch.randn(6, 3), torch.zeros(6, 2)
    assert torch.equal(other.predict(obs, action).mean, ensemble.predict(obs, action).mean)
    with pytest.raises(UserError, match="does not exist"):
        Ensemble(SPEC, EnsembleConfig(load=str(tmp_path / "none.pt")))


def test_load_starts_the_optimizer_afresh(tmp_path):
    small_ensemble().save(tmp_path / "dynamics.pt")
    other = small_ensemble()
    other.load(tmp_path / "dynamics.pt")
    assert not any(tensor.any() for slots in other.optimizer.state.values() for tensor in slots.values())  # as Adam begins


def test_fingerprint_is_equal_for_equal_rows_only():
    torch.manual_seed(0)
    data = linear_gaussian(5)
    copy = Transition(*(column.clone() for column in data[:5]))
    assert files.fingerprint(data) == files.fingerprint(copy)
    copy.reward[2] += 1
    assert files.fingerprint(data) != files.fingerprint(copy)


@pytest.mark.parametrize(
    "odd", [("members", "5"), ("members", 0), ("elites", 2.0), ("hidden", []), ("hidden", [8, -1]), ("hidden", 8), ("delta", 1)]
)
def test_config_of_a_file_with_odd_settings_is_refused(tmp_path, odd):
    path = tmp_path / "dynamics.pt"
    write_tensors(path, files.FORMAT, {"fits": {}, "cfg": dict([odd]), "state": {}, "fitted": {}, "meta": {}})
    with pytest.raises(UserError, match=rf"dynamics\.{odd[0]}=.* is no value of this option"):
        files.config(path, EnsembleConfig())
