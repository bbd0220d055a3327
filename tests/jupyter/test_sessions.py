"""The sessions of a server."""

from __future__ import annotations

from tests.jupyter.lab import Server


def test_a_session_that_is_moved_to_another_kernel_leaves_both(serve: Server) -> None:
    kernels = {name: serve.scene.kernel(name) for name in ("analysis", "robot")}
    model = {"path": "moved.ipynb", "name": "", "type": "notebook", "kernel": {"name": "analysis"}}
    status, session = serve.ask("POST", "/api/sessions", model)
    assert 201 == status

    for kernel in ({"name": "robot"}, {"id": kernels["analysis"]["id"]}, {"id": kernels["robot"]["id"]}):
        status, moved = serve.ask("PATCH", f"/api/sessions/{session['id']}", {"kernel": kernel})

        assert 200 == status
        wanted = kernels["analysis"] if kernel.get("id") == kernels["analysis"]["id"] else kernels["robot"]
        assert wanted["id"] == moved["kernel"]["id"]
    after = {name: serve.scene.kernel(name) for name in kernels}
    assert {name: view["generation"] for name, view in kernels.items()} == {
        name: view["generation"] for name, view in after.items()
    }
