"""A storage of Snakemake for tests that list what rules declare: it is empty, and nothing can be stored."""

from collections.abc import Iterable
from typing import Any

from snakemake_interface_storage_plugins.io import IOCacheStorageInterface
from snakemake_interface_storage_plugins.storage_object import StorageObjectRead, StorageObjectWrite
from snakemake_interface_storage_plugins.storage_provider import (
    ExampleQuery,
    Operation,
    StorageProviderBase,
    StorageQueryValidationResult,
)


class StorageProvider(StorageProviderBase):
    @classmethod
    def example_queries(cls) -> list[ExampleQuery]:
        return []

    def rate_limiter_key(self, query: str, operation: Operation) -> Any:
        return None

    def default_max_requests_per_second(self) -> float:
        return 1000.0

    def use_rate_limiter(self) -> bool:
        return False

    @classmethod
    def is_valid_query(cls, query: str) -> StorageQueryValidationResult:
        return StorageQueryValidationResult(query=query, valid=True)


class StorageObject(StorageObjectRead, StorageObjectWrite):
    def local_suffix(self) -> str:
        return str(self.query)

    async def inventory(self, cache: IOCacheStorageInterface) -> None:
        pass

    def get_inventory_parent(self) -> str | None:
        return None

    def cleanup(self) -> None:
        pass

    def exists(self) -> bool:
        return False

    def mtime(self) -> float:
        raise FileNotFoundError(self.query)

    def size(self) -> int:
        raise FileNotFoundError(self.query)

    def retrieve_object(self) -> None:
        raise FileNotFoundError(self.query)

    def store_object(self) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        raise FileNotFoundError(self.query)

    def list_candidate_matches(self) -> Iterable[str]:
        return ()
