"""What is stored under which name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The names of keys and channels below one prefix.

    The braces are a Redis Cluster hash tag: everything of one environment lives in one slot, so that one script
    can write it whole.
    """

    prefix: str = "flagrelay"

    def state(self, environment: str) -> str:
        """Hash: epoch, revision, nonce, metadata, and how many flags and evaluators there must be."""
        return self._of(environment, "state")

    def flags(self, environment: str) -> str:
        """Hash: flag key to `{"revision": N, "flag": {…}}`."""
        return self._of(environment, "flags")

    def evaluators(self, environment: str) -> str:
        """Hash: population name to `{"revision": N, "rule": …}`."""
        return self._of(environment, "evaluators")

    def killed(self, environment: str) -> str:
        """Hash: flag key to who killed it, when, why, and the original definition."""
        return self._of(environment, "killed")

    def changes(self, environment: str) -> str:
        """Stream of changes, and the name of the channel that carries them."""
        return self._of(environment, "changes")

    def releases(self, environment: str) -> str:
        """Hash: flag key to its release, `{"revision": N, "release": {…}}`."""
        return self._of(environment, "releases")

    def populations(self, environment: str) -> str:
        """Hash: population name to what people should know of it: description and risk."""
        return self._of(environment, "populations")

    def history(self, environment: str) -> str:
        """Stream: who changed what and why, an entry for every change, without definitions; outlives the changelog."""
        return self._of(environment, "history")

    def actions(self, environment: str) -> str:
        """Stream: what people did to releases and killed; never trimmed."""
        return self._of(environment, "actions")

    def relays(self, environment: str) -> str:
        """Hash: relay to its last report."""
        return self._of(environment, "relays")

    def idempotency(self, environment: str, digest: str) -> str:
        """String: what came of a request to the control API that had an idempotency key; gone after a day."""
        return self._of(environment, f"idempotency:{digest}")

    def all_of(self, environment: str) -> list[str]:
        """Every key of an environment that lasts, in the order in which the write script takes them."""
        of = (
            self.state,
            self.flags,
            self.evaluators,
            self.killed,
            self.changes,
            self.releases,
            self.populations,
            self.history,
            self.actions,
            self.relays,
        )
        return [name(environment) for name in of]

    @property
    def environments(self) -> str:
        """Set: names of environments."""
        return f"{self.prefix}:environments"

    @property
    def keys(self) -> str:
        """Hash: digest of an access key to its record; and the channel that tells of its changes."""
        return f"{self.prefix}:keys"

    def _of(self, environment: str, what: str) -> str:
        return f"{self.prefix}:{{{environment}}}:{what}"
