"""What the settings may say about the store, and where things then lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from storing import ONE, cube_data, manifest_of, version_data

from schemas.errors import ConfigError
from schemas.settings import Settings, load_settings
from schemas.stores import Folder, S3Access, S3Place, parse_store
from storage import published
from storage.cube import Cube
from tasks.workspace import Workspace


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("file:///srv/factorcube/", Folder(path=Path("/srv/factorcube"))),
        ("file:///srv/a..b", Folder(path=Path("/srv/a..b"))),
        ("s3://risk-team", S3Place(bucket="risk-team", prefix="")),
        ("s3://risk.team/factorcube/prod_1/", S3Place(bucket="risk.team", prefix="factorcube/prod_1")),
    ],
)
def test_a_store_is_a_folder_or_a_bucket(url, place):
    assert parse_store(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "http://risk.example.com/x",
        "gs://bucket/x",
        "memory://",
        "S3://bucket",
        "/srv/factorcube",
        "file:/srv",
        "file://",
        "file:///",
        "file://host/srv",
        "file:///srv/../etc",
        "file:///srv/..",
        "file:///srv?x=1",
        "file:///srv#x",
        "file:///srv/%2e%2e/etc",
        "file:///srv\\..\\etc",
        "file:///srv\n",
        "s3://",
        "s3:///prefix",
        "s3://key:password@bucket/prefix",
        "s3://bucket:9000/prefix",
        "s3://Bucket",
        "s3://10.0.0.1/x",
        "s3://a..b/x",
        "s3://bucket/../other",
        "s3://bucket//x",
        "s3://bucket/.hidden",
        "s3://bucket/x?region=eu",
        "s3://bucket/x#y",
        "s3://bucket/a%2Fb",
        "s3://bucket/x\n",
        "s3://bucket\n/x",
    ],
)
def test_other_stores_are_refused_and_never_repeated(url, monkeypatch):
    monkeypatch.setenv("FACTORCUBE_STORE", url)
    with pytest.raises(ConfigError, match="FACTORCUBE_STORE: ") as failure:
        load_settings()
    assert "password" not in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [("file:///srv/x", "use s3://"), ("s3://key:password@bucket/x", "without credentials"), ("work", "use s3://")],
)
def test_intermediate_results_are_shared_in_a_bucket_alone(url, told, monkeypatch):
    monkeypatch.setenv("FACTORCUBE_WORK", url)
    with pytest.raises(ConfigError, match=f"FACTORCUBE_WORK: .*{told}") as failure:
        load_settings()
    assert "password" not in str(failure.value)
    monkeypatch.setenv("FACTORCUBE_WORK", "s3://bucket/x")
    assert load_settings().work == "s3://bucket/x"
    monkeypatch.setenv("FACTORCUBE_ALLOWED_SCHEMES", '["file"]')
    with pytest.raises(ConfigError, match=r"FACTORCUBE_WORK: .*use none at all"):
        load_settings()


def test_settings_may_allow_fewer_schemes_and_never_more(monkeypatch):
    monkeypatch.setenv("FACTORCUBE_STORE", "s3://bucket")
    monkeypatch.setenv("FACTORCUBE_ALLOWED_SCHEMES", '["file", "gs"]')
    with pytest.raises(ConfigError, match="not allowed for a store; use file://"):
        load_settings()
    monkeypatch.setenv("FACTORCUBE_STORE", "gs://bucket")
    with pytest.raises(ConfigError, match="not allowed for a store; use file://"):
        load_settings()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254",
        "https://169.254.169.254/latest",
        "http://2852039166",
        "http://0xA9FEA9FE",
        "http://0251.0376.0251.0376",
        "https://[::ffff:169.254.169.254]",
        "https://[fe80::1]:9000",
        "https://metadata.google.internal",
        "http://minio.example.com:9000",
        "http://10.0.0.5:9000",
        "http://0.0.0.0:9000",
        "https://user:password@s3.example.com",
        "https://s3.example.com?x=1",
        "ftp://s3.example.com",
        "s3.example.com",
    ],
)
def test_an_endpoint_is_https_or_loopback_and_never_a_metadata_service(endpoint):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        with pytest.raises(ConfigError, match="environment: AWS_ENDPOINT_URL: ") as failure:
            S3Access.of({name: endpoint}, "environment", strict=False)
        assert "password" not in str(failure.value)


def test_endpoints_and_credentials_that_are_taken():
    for endpoint in ("https://s3.example.com", "http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"):
        access = S3Access.of({"AWS_ENDPOINT_URL": endpoint, "HOME": "/root"}, "environment", strict=False)
        assert access.endpoint == endpoint
        assert access.plain == endpoint.startswith("http:")
    access = S3Access.of({"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}, "block 'x'", strict=True)
    assert access.keys == {"access_key_id": "a-key", "secret_access_key": "a-secret"}
    assert "a-secret" not in f"{access!r} {access} {access.model_dump()} {access.model_dump_json()}"
    assert access.masked("refused for a-key: a-secret") == "refused for **********: **********"
    for half in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        with pytest.raises(ConfigError, match="give both"):
            S3Access.of({half: "x"}, "environment", strict=False)


def test_a_folder_elsewhere_holds_cubes_and_versions_and_the_root_the_rest(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    space = Workspace.of(Settings(root=tmp_path / "root", store=f"file://{elsewhere}"))
    Cube.open_or_create(space.layout, "us").upsert(cube_data([ONE]), message="m", metadata={})
    dataset = version_data(end=ONE)
    ref = published.publish(space.layout, dataset, manifest_of(dataset), {})
    space.work.put_json("metrics", "k", 1)
    assert published.locate(space.layout, ref) == str(elsewhere / "published" / "us" / "ipca" / ref.version)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["cubes", "published"]
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["work"]
