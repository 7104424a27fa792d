"""Puts bugs into a copy of the code, one at a time, and sees that a test catches each: `make mutants`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERIFICATION = "tests/torture/test_verification.py"
FENCING = "tests/torture/test_fencing.py"
RECOVERY = "tests/torture/test_recovery.py"
ONLINE = "tests/torture/test_online.py"
FAULT_LOOP = "tests/torture/test_fault_loop.py"
CRASHES = "tests/torture/test_crash_loop.py"
MIGRATION = "tests/integration/test_migration.py"
INVENTORY = "tests/unit/migration/test_inventory.py"
CLEAN_UPS = "tests/safety/test_clean_ups.py"
OLDER = "tests/safety/test_older_database.py"
ENROLMENTS = "tests/safety/test_enrolments.py"
OWNERSHIP = "tests/integration/test_ownership.py"
OTHER = "tests/safety/test_other_cluster.py"
PLACE = "tests/unit/vault/test_place.py"
PLACES = "tests/database/keystores/test_places.py"


@dataclass(frozen=True)
class Bug:
    """A bug: what stands in a file, and what shall stand there instead; and who has to notice."""

    name: str
    file: str
    right: str
    wrong: str
    test: str
    only: str


BUGS = [
    Bug(
        "verification off",
        "control_plane/migration/copy.py",
        "            record = yield from self.destination.read(entry.name)\n        except KeystoreFault as fault:\n"
        "            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None\n"
        '        except DamagedRecordError as damage:\n            raise _unverified(f"read back',
        '            record = yield from self.destination.read(entry.name)\n            failpoints.reach("shard.verifying")\n'
        "            return entry.fingerprint\n        except KeystoreFault as fault:\n"
        "            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None\n"
        '        except DamagedRecordError as damage:\n            raise _unverified(f"read back',
        VERIFICATION, "flip or lose",
    ),
    Bug(
        "the key that is read back is not compared",
        "control_plane/migration/copy.py",
        "self.origin) or not hmac.compare_digest(digest, entry.fingerprint):\n"
        '            raise _unverified("a key read back at the destination differs")\n'
        '        failpoints.reach("shard.verifying")\n        return digest\n',
        "self.origin):\n"
        '            raise _unverified("a key read back at the destination differs")\n'
        '        failpoints.reach("shard.verifying")\n        return entry.fingerprint\n',
        VERIFICATION, "flip or over",
    ),
    Bug(
        "whose key is read back does not matter",
        "control_plane/migration/copy.py",
        "if whose != (entry.user, entry.generation, self.origin) or not", "if not",
        VERIFICATION, "rewrite",
    ),
    Bug(
        "decide before verify",
        "control_plane/migration/workflow.py",
        '("verify", _verify), ("decide", _decide)', '("decide", _decide), ("verify", _verify)',
        VERIFICATION, "receipt",
    ),
    Bug(
        "the source is emptied before the decision",
        "control_plane/migration/workflow.py",
        '    failpoints.reach("verify.done")\n',
        '    source = opening.vault_of(plane, parties.organization, parties.source)\n    with Transport() as transport:\n'
        "        for page in source.pages(transport):\n            for name in page:\n"
        '                transport.run_one(source.delete(name))\n    failpoints.reach("verify.done")\n',
        RECOVERY, "operator_cancels and decide",
    ),
    Bug(
        "CAS off",
        "vault/archive_keys.py",
        'body = {"options": {"cas": 0}, "data": body}', 'body = {"data": body}',
        VERIFICATION, "even_where_the_role",
    ),
    Bug(
        "a soft delete on version 2",
        "vault/archive_keys.py",
        'self._allowed("DELETE", self._path("metadata", name)', 'self._allowed("DELETE", self._path("data", name)',
        MIGRATION, "every_key_moves",
    ),
    Bug(
        "journal not flushed: a shard is written down before it is copied",
        "control_plane/migration/lease.py",
        "            inventory, annotated = self._move(task)\n",
        "            shards.finish(self._plane, task, self.holder, Inventory(), 0)\n"
        "            inventory, annotated = self._move(task)\n",
        CRASHES, "test_the_service_is_killed and shard.copying and not again",
    ),
    Bug(
        "tokens of those who were replaced live on",
        "control_plane/keystores/fencing.py",
        "    transport.run_one(vault.end_tokens(tokens))", "    str(vault.end_tokens(tokens))",
        FENCING, "on_its_way",
    ),
    Bug(
        "tokens are not written down",
        "control_plane/keystores/fencing.py",
        "    session.flush()\n    return partial(_forget", "    session.flush()\n    session.delete(row)\n    return partial(_forget",
        FENCING, "on_its_way",
    ),
    Bug(
        "a service that was replaced gets new tokens",
        "control_plane/runtime/leadership.py",
        "    if leader != plane.instance.encode():", "    if leader is None:",
        FENCING, "only_who_holds",
    ),
    Bug(
        "a worker that was replaced gets new tokens",
        "control_plane/migration/shards.py",
        "            if session.scalar(held.with_for_update(read=True)) is None:", "            if held is None:",
        FENCING, "cannot_write or rolled_back",
    ),
    Bug(
        "lost workers are not replaced",
        "control_plane/migration/supervisor.py",
        "            if now - since > self._lease_s:", "            if now - since > 3600:",
        CRASHES, "worker_is_killed and copying",
    ),
    Bug(
        "nothing ever stalls",
        "control_plane/migration/supervisor.py",
        "        elif now - self._last > self._window_s:", "        elif now - self._last > 3600:",
        RECOVERY, "all_workers_die",
    ),
    Bug(
        "surplus keys are overlooked",
        "control_plane/migration/copy.py",
        "    if found > expected:", "    if found > expected + 1:",
        VERIFICATION, "adds",
    ),
    Bug(
        "keys that vanish late are overlooked",
        "control_plane/migration/copy.py",
        "    if found < expected:", "    if found < expected - 1:",
        VERIFICATION, "gone_after",
    ),
    Bug(
        "clean-up removes what others wrote",
        "control_plane/keystores/removal.py",
        "        if (written_by != origin) if origin else not right:", "        if not right:",
        VERIFICATION, "adds",
    ),
    Bug(
        "the destination may hold something",
        "control_plane/migration/preflight.py",
        "if foreign := destination.count(transport):", "if foreign := 0:",
        RECOVERY, "another_value",
    ),
    Bug(
        "a canary is written before the destination is looked at",
        "control_plane/migration/preflight.py",
        "            make_room(transport)\n",
        "            transport.run_one(destination.prove(origin))\n            make_room(transport)\n",
        RECOVERY, "nothing_is_written",
    ),
    Bug(
        "one cluster under two names passes",
        "control_plane/migration/preflight.py",
        "            if found == cluster:", "            if found == cluster + '?':",
        MIGRATION, "one_cluster",
    ),
    Bug(
        "a failed migration leaves its copies",
        "control_plane/migration/workflow.py",
        "        return not removal.own(parties.migration.id).kept", "        return removal is not None",
        RECOVERY, "operator_cancels and verify",
    ),
    Bug(
        "the source is never emptied",
        "control_plane/migration/lifecycle.py",
        "        session.add(clean_ups_of.new(migration_id, source, Side.SOURCE, wait_s=retain_s))",
        "        assert retain_s >= 0",
        VERIFICATION, "receipt",
    ),
    Bug(
        "a cancel comes too late unnoticed",
        "control_plane/migration/lifecycle.py",
        "    if row.cancel_by is not None:\n        raise MigrationFailed", "    if False:\n        raise MigrationFailed",
        RECOVERY, "operator_cancels and decide",
    ),
    Bug(
        "reads may be as old as a standby is behind",
        "vault/exchange.py",
        'index = index if method in ("GET", "LIST") else ""', 'index = ""',
        VERIFICATION, "standby",
    ),
    Bug(
        "keys enrolled meanwhile are forgotten",
        "control_plane/escrow/deposit.py",
        "            ledger.note_late(session, owner, new)\n", "",
        ONLINE, "only_the_source",
    ),
    Bug(
        "enrolments that failed halfway are left behind",
        "control_plane/migration/online.py",
        "                if not _remove_unacknowledged(plane, transport, parties, destination):\n                    raise",
        "                raise",
        ONLINE, "in_the_middle",
    ),
    Bug(
        "keys are enrolled at the source while the default migration runs",
        "control_plane/escrow/deposit.py",
        "            maintenance.require_writable(owner)\n", "",
        ONLINE, "default_holds",
    ),
    Bug(
        "what is enrolled online goes to the source alone",
        "control_plane/migration/workflow.py",
        "        maintenance.mirror(owner, row.destination_id)\n", "",
        ONLINE, "testbeds or default_holds or canceled_keeps",
    ),
    Bug(
        "a refusal is believed although the token may have ended, or a standby lags behind",
        "vault/session.py",
        "        self._token = None\n        return (yield from self._in_a_while(ask))",
        "        return (yield from self._in_a_while(ask))",
        "tests/unit/vault/test_session.py", "standby",
    ),
    Bug(
        "a proof believes the first refusal of a standby that does not know the token yet",
        "vault/keystore.py",
        "        yield from self._put(name, canary.to_body())\n",
        "        if not (yield from self.create(canary, name)):\n            raise self._may_not_create()\n",
        "tests/unit/vault/test_session.py", "proved_although",
    ),
    Bug(
        "a key is deleted without a look at the active keystore",
        "control_plane/keystores/removal.py",
        "        if not held:\n            return Outcome.KEPT\n", "",
        CLEAN_UPS, "has_lost or differs",
    ),
    Bug(
        "a key that differs at the active keystore counts as held",
        "control_plane/keystores/removal.py",
        "                held = found.same_key(record)\n", "                held = True\n",
        CLEAN_UPS, "differs",
    ),
    Bug(
        "a keystore moves while its keys have still to be removed",
        "control_plane/keystores/swapping.py",
        "        clean_ups.require_none(session, row)\n        require_free(session, owner, change",
        "        require_free(session, owner, change",
        CLEAN_UPS, "empty_mount",
    ),
    Bug(
        "what the keystore remembers does not matter",
        "vault/checkpoint.py",
        "        if found is None or found.epoch < self.epoch:", "        if found is None or found.epoch:",
        OLDER, "before_a_migration or two_services",
    ),
    Bug(
        "decisions leave no checkpoint",
        "control_plane/keystores/checkpoints.py",
        "            if transport.run_one(vault.remember(made)):", "            if made:",
        OLDER, "before_a_migration or two_services",
    ),
    Bug(
        "enrolments leave no checkpoint",
        "control_plane/escrow/deposit.py",
        "        checkpoints.note(owner.id)", "        pass",
        ENROLMENTS, "remembered_at_the_keystore",
    ),
    Bug(
        "an enrolment that fails deletes what it wrote",
        "control_plane/escrow/deposit.py",
        "            list(transport.run(map(write, records), plane.settings.in_flight))\n",
        "            try:\n"
        "                list(transport.run(map(write, records), plane.settings.in_flight))\n"
        "            except KeystoreFault:\n"
        "                list(transport.run((vault.erase(record.name) for record in records), 16))\n"
        "                raise\n",
        ENROLMENTS, "deletes_nothing",
    ),
    Bug(
        "an enrolment replaces what the database does not know",
        "control_plane/escrow/deposit.py",
        "            if not found.same_key(record):\n                raise Conflict(",
        "            if not found.same_key(record):\n                yield from vault.erase(record.name)\n"
        "                found = yield from vault.ensure(record)\n"
        "            if not found.same_key(record):\n                raise Conflict(",
        OLDER, "never_replaced",
    ),
    Bug(
        "keys enrolled during an edit are not looked for",
        "control_plane/keystores/swapping.py",
        "            _require_there(plane, owner, change, fresh)\n", "",
        ENROLMENTS, "to_another_mount",
    ),
    Bug(
        "a key that the mount will delete counts as read back",
        "control_plane/migration/copy.py",
        "        if record.expires:", "        if False:",
        OTHER, "after_the_preflight",
    ),
    Bug(
        "tokens that cannot be ended are accepted",
        "vault/keystore.py",
        "        yield from self._require_tokens_end(name)\n", "",
        OTHER, "no_token_can_be_ended",
    ),
    Bug(
        "a key that read as something else once stays at the source",
        "control_plane/keystores/removal.py",
        "if not left or (not removed and left <=", "if not left or (left <=",
        FAULT_LOOP, "while_the_source_is_emptied",
    ),
    Bug(
        "a missing master key is made anew",
        "control_plane/runtime/opening.py",
        "MasterKey.load(key_file))", "MasterKey.load_or_create(key_file))",
        "tests/integration/test_service.py", "missing_is_not_made_anew",
    ),
    Bug(
        "a service that does not lead changes the schema",
        "control_plane/runtime/opening.py",
        "    lead(engine)\n", "    upgrade_schema(engine)\n    lead(engine)\n",
        "tests/database/runtime/test_opening.py", "does_not_lead_makes",
    ),
    Bug(
        "a workflow that nobody runs is left",
        "control_plane/migration/resuming.py",
        "for workflow_id in stranded & self._suspects:", "for workflow_id in set[str]():",
        RECOVERY, "took_with_it",
    ),
    Bug(
        "a standby that lags far behind is believed",
        "vault/session.py",
        "self._clock() >= until or not", "True or not",
        "tests/unit/vault/test_session.py", "far_behind",
    ),
    Bug(
        "a renamed resource deletes what it managed",
        "control_plane/organizations/ownership.py",
        "if mark is None or row.owner_mark == (mark or None):", "if mark is None or row.owner_mark:",
        OWNERSHIP, "renamed_organization",
    ),
    Bug(
        "a destroyed key is carried back",
        "control_plane/keystores/removal.py",
        "        held = self._destroyed(record)\n        if", "        held = False\n        if",
        CLEAN_UPS, "destroyed_key",
    ),
    Bug(
        "who answered before a login is believed to have answered the login",
        "vault/session.py",
        "right = yield from self._of_the_cluster([response])", "right = True",
        "tests/unit/vault/test_cluster.py", "",
    ),
    Bug(
        "tokens count as ended wherever the name leads",
        "vault/session.py",
        "            if not answers or (yield from self._of_the_cluster(answers, REVOKE_TIMEOUT_S)):\n", "            if True:\n",
        "tests/unit/vault/test_cluster.py", "tokens_of_others",
    ),
    Bug(
        "a recovery does without a keystore that cannot be read",
        "control_plane/keystores/recovery.py",
        "        if found.plan.unread:\n            raise _unread(found.plan)\n", "",
        OLDER, "cannot_be_read",
    ),
    Bug(
        "what proofs have left stays at the source",
        "control_plane/keystores/removal.py",
        "        self._transport.run_one(self._at.remove_canaries())\n", "",
        CLEAN_UPS, "might_not_delete",
    ),
    Bug(
        "a number may have as many digits as a server likes",
        "vault/parsing.py",
        '("-")) > _LONGEST_NUMBER:', '("-")) > 10**6:',
        "tests/unit/vault/test_parsing.py", "",
    ),
    Bug(
        "a mistake in one turn ends the work for good",
        "control_plane/runtime/background.py",
        'tried again", work=work.name)\n\n\n', 'tried again", work=work.name)\n            return\n\n\n',
        "tests/unit/runtime/test_background.py", "not_the_last_one",
    ),
    Bug(
        "keys are written while somebody decides",
        "control_plane/runtime/gate.py",
        "        return organization_id not in self._closed and not self._waiting[organization_id]", "        return True",
        "tests/unit/runtime/test_gate.py", "who_closes",
    ),
    Bug(
        "one organization may take every thread",
        "control_plane/api/queues.py",
        "lane.size * (1 + _WAITING)", "10**6",
        "tests/database/api", "leave_room",
    ),
    Bug(
        "requests that fail are worked on as fast as they come",
        "control_plane/api/admission.py",
        "succeeded = not _has_failed(message", "succeeded = bool(message",
        "tests/database/api", "fail_are_few",
    ),
    Bug(
        "a keystore that does not work is asked by everyone",
        "control_plane/keystores/breaker.py",
        "trouble.ask_at = now + _ASK_AGAIN_S", "trouble.ask_at = now",
        "tests/unit/keystores/test_breaker.py", "one_caller",
    ),
    Bug(
        "a body is read before it is known who sends it",
        "control_plane/app.py",
        '(path.startswith("/v1/") and', '(path.startswith("/v2/") and',
        "tests/database/api", "before_its_body",
    ),
    Bug(
        "a second key in an encrypted part is overlooked",
        "declarations/pkcs12.py",
        '        if keys_in(data, candidate or b"") > 1:', '        if keys_in(data, candidate or b"") > 99:',
        "tests/unit/declarations/test_certificate.py", "where_they_are_encrypted",
    ),
    Bug(
        "certificate files of one organization keep both helpers busy",
        "declarations/pkcs12.py",
        "self.free and owner not in self._served", "self.free",
        "tests/unit/declarations/test_certificate.py", "one_helper_busy",
    ),
    Bug(
        "certificate files of one organization may keep a helper busy for ever",
        "declarations/pkcs12.py",
        "if (left_s := self._left_s(owner)) <= 0:", "if (left_s := self._left_s(owner)) <= -9e9:",
        "tests/unit/declarations/test_certificate.py", "cost_too_much",
    ),
    Bug(
        "policies go by the type alone",
        "policy/declared.py",
        "    if kind is not None or not type_token.startswith(DYNAMIC):", "    if kind is not None or type_token:",
        "tests/unit/policy", "whatever_its_type",
    ),
    Bug(
        "a password goes out in clear",
        "control_plane/notifications/smtp.py",
        "        start_tls = True if parts.password", "        start_tls = False if parts.password",
        "tests/database/notifications/test_mail.py", "without_tls",
    ),
    Bug(
        "a mail that is refused for good is tried for ever",
        "control_plane/notifications/outbox.py",
        "            if final or now_utc()", "            if now_utc()",
        "tests/database/notifications", "refused_for_good",
    ),
    Bug(
        "namespaces do not count where places are compared",
        "vault/session.py",
        "Place(self.cluster_id, self.path, self.tenancy.organization)",
        "Place(self.cluster_id, self.tenancy.mount, self.tenancy.organization)",
        PLACE, "sent_to_its_namespace",
    ),
    Bug(
        "the database takes one place twice, under two names",
        "control_plane/schema/versions/0003_namespaces.py",
        """sa.text("ltrim(namespace || '/' || mount, '/')")""", """sa.text("(namespace || ':' || mount)")""",
        PLACES, "takes_one_place_once",
    ),
    Bug(
        "a place of the database is its mount",
        "control_plane/organizations/tables.py",
        "within(self.namespace, self.mount)", "self.mount",
        PLACES, "as_we_do",
    ),
    Bug(
        "tokens are ended in the root namespace",
        "vault/session.py",
        "        given_in = self.tenancy.namespace if namespace is None else namespace\n", '        given_in = namespace or ""\n',
        PLACE, "sent_to_its_namespace or ended_in_the_namespace",
    ),
    Bug(
        "tokens of others are ended in the namespace of today",
        "control_plane/keystores/fencing.py",
        ".decode(), row.namespace)", ".decode(), vault.tenancy.namespace)",
        PLACES, "each_token",
    ),
    Bug(
        "a clean-up deletes where the keystore is today",
        "control_plane/keystores/clean_ups.py",
        "            path=row.path,\n", "",
        PLACES, "clean_up",
    ),
    Bug(
        "a path in another mount counts as a mount",
        "vault/keystore.py",
        """if data.get("path") not in (f"{mount}/", f"{path}/"):""", """if data.get("path") == mount:""",
        PLACE, "another_mount",
    ),
    Bug(
        "every inventory is the same",
        "control_plane/migration/inventory.py",
        'int.from_bytes(fingerprint, "big")) % _MODULUS', "1) % _MODULUS",
        INVENTORY, "another",
    ),
    Bug(
        "forms are read before it is known who sends them",
        "control_plane/app.py",
        "    return console_access.doorkeeper(services) if console_access.is_private(path) else None",
        "    return None",
        "tests/database/api", "before_it_is_read",
    ),
    Bug(
        "a database that is down is an internal error",
        "control_plane/api/admission.py",
        "        except SQLAlchemyError as error:\n            return of_database(error)\n        self._known",
        "        except ZeroDivisionError as error:\n            return of_database(error)\n        self._known",
        "tests/database/api", "database_that_is_down",
    ),
    Bug(
        "half a head keeps its connection",
        "control_plane/runtime/listener.py",
        "        if self.conn.their_state is h11.IDLE:", "        if self.conn.their_state is h11.ERROR:",
        "tests/unit/runtime/test_listener.py", "half_a_head",
    ),
    Bug(
        "a name that encodes a NUL is asked the database for",
        "control_plane/keystores/verification.py",
        'return check_user_id(b32decode(encoded + "=" * (-len(encoded) % 8)).decode())',
        'return b32decode(encoded + "=" * (-len(encoded) % 8)).decode()',
        "tests/database/keystores/test_work.py", "that_there_can_be",
    ),
    Bug(
        "an audit that fails is the next one again",
        "control_plane/keystores/verification.py",
        "            self._failed[due.id] = now\n        self._turns", "            pass\n        self._turns",
        "tests/database/keystores/test_work.py", "looked_through",
    ),
    Bug(
        "a mistake with one clean-up ends the round",
        "control_plane/keystores/clean_ups.py",
        'with isolated("clean-up", clean_up=number), self._locks[keystore_id]:', "with self._locks[keystore_id]:",
        "tests/database/keystores/test_work.py", "one_clean_up",
    ),
    Bug(
        "the clean-ups of an organization take every place",
        "control_plane/keystores/clean_ups.py",
        "due = [(owner, (number,", "due = [(number, (number,",
        "tests/database/keystores/test_work.py", "of_one_organization",
    ),
    Bug(
        "a mistake with one health check ends the round",
        "control_plane/monitoring/runner.py",
        "            result = yield from probe(subject, lookups, self._plane.settings.health_check_s)",
        "            pass\n        result = yield from probe(subject, lookups, self._plane.settings.health_check_s)",
        "tests/database/monitoring/test_runner.py", "probe",
    ),
    Bug(
        "an organization's webhooks are called side by side",
        "control_plane/notifications/tables.py",
        'return func.jsonb_extract_path_text(cls.body, "organization")', "return cls.event_id.expression",
        "tests/database/notifications/test_outbox.py", "holds_up_no_other",
    ),
    Bug(
        "who has many messages has every turn",
        "control_plane/runtime/background.py",
        "        if time.monotonic() >= ends:", "        if False:",
        "tests/database/notifications/test_outbox.py", "had_its_turn",
    ),
    Bug(
        "what nobody reads comes as fast as it can",
        "control_plane/runtime/listener.py",
        "            self._slow_down(len(data))", "            pass",
        "tests/unit/runtime/test_listener.py", "read_slowly",
    ),
    Bug(
        "what nobody reads may come for ever",
        "control_plane/runtime/listener.py",
        "            self._cut_off = self.loop.call_later(_UNREAD_S, self.transport.close)", "            pass",
        "tests/unit/runtime/test_listener.py", "is_not_waited_for",
    ),
    Bug(
        "a stop looks like a lost lead",
        "control_plane/runtime/background.py",
        "    if not leads and not _ending.is_set():", "    if not leads:",
        "tests/unit/runtime/test_background.py", "told_to_stop",
    ),
    Bug(
        "the chain of a certificate does not count",
        "control_plane/keystores/binding.py",
        "(row.certificate_pem, binding.certificate.certificate_pem.decode())",
        "(row.certificate_fingerprint, binding.certificate.fingerprint)",
        "tests/database/keystores/test_registration.py", "another_chain",
    ),
    Bug(
        "a start that is refused removes somebody else's keystore",
        "control_plane/console/migration_forms.py",
        "            if made:", "            if draft:",
        "tests/browser/test_console.py", "somebody_else_has_registered",
    ),
    Bug(
        "what a standby said before it became the active node is believed",
        "vault/session.py",
        "            if not last:\n", "            if last:\n                return None\n            if not last:\n",
        "tests/unit/vault/test_session.py", "before_it_became_the_active_node",
    ),
    Bug(
        "keystores that are not in use have problems, too",
        "control_plane/overview.py",
        "found = select(Keystore.id).where(Keystore.kind == Kind.SELF_ADMINISTERED, is_wrong)\n"
        "    return Organization.active_keystore_id, found",
        "found = select(Keystore.organization_id).where(Keystore.kind == Kind.SELF_ADMINISTERED, is_wrong)\n"
        "    return Organization.id, found",
        "tests/database/test_overview.py", "shown_with_all_its_problems",
    ),
    Bug(
        "a keystore stays alerted when its monitor is removed",
        "control_plane/monitoring/monitors.py",
        "        row.alerts = False\n", "",
        "tests/integration/test_migration.py", "nobody_was_alerted",
    ),
    Bug(
        "a text that cannot be stored looks like a database that is away",
        "control_plane/api/problems.py",
        "if isinstance(error, DataError):", "if isinstance(error, DataError) and False:",
        "tests/integration/test_fuzz.py", "sender_s_mistake",
    ),
    Bug(
        "an outage is told by its reason alone",
        "control_plane/monitoring/results.py",
        "result.detail, result.cause\n", "result.detail, None\n",
        "tests/health/test_causes.py", "expired",
    ),
    Bug(
        "what answers 429 to everything is online",
        "control_plane/monitoring/probe.py",
        "            yield from vault.require_cluster()\n", "",
        "tests/health/test_monitor.py", "no_vault_servers",
    ),
    Bug(
        "a quota of the server is an outage",
        "control_plane/monitoring/probe.py",
        "            if subject.cluster_id is None:\n                raise\n", "            if limit:\n                raise\n",
        "tests/health/test_monitor.py", "quota_of_the_server",
    ),
    Bug(
        "a keystore that comes and goes has an incident each time",
        "control_plane/monitoring/incidents.py",
        "ONLINE_MINUTES * minute)", "0 * minute)",
        "tests/database/monitoring/test_incidents.py", "comes_and_goes",
    ),
    Bug(
        "certificates that machines renew are announced",
        "control_plane/monitoring/expiry.py",
        "left <= timedelta(days=number) <= lives", "left <= timedelta(days=number)",
        "tests/unit/monitoring/test_expiry.py", "which_notice",
    ),
    Bug(
        "the keystore that is not in use is announced",
        "control_plane/monitoring/expiry.py",
        "Organization.active_keystore_id == Keystore.id", "Organization.id == Keystore.organization_id",
        "tests/database/monitoring/test_expiry_notices.py", "left_once",
    ),
    Bug(
        "mails wait for those of their recipient, whoever left them",
        "control_plane/notifications/tables.py",
        "return cls.organization_id.expression", "return cls.recipient.expression",
        "tests/database/notifications/test_outbox.py", "names_those_of_another",
    ),
    Bug(
        "an organization enrols beyond its quota",
        "control_plane/escrow/quota.py",
        "            if left < more:\n                raise", "            if left < 0:\n                raise",
        "tests/database/escrow/test_quota.py", "beyond_its_keys",
    ),
    Bug(
        "a page forgets what began in the same moment",
        "control_plane/migration/views.py",
        "tuple_(*order) < tuple_(last.started_at, last.id)", "Migration.started_at < last.started_at",
        "tests/database/api/test_paging.py", "migrations_are_whole",
    ),
    Bug(
        "an export repeats what stands at the end of a page",
        "control_plane/organizations/history.py",
        "HistoryEntry.id > after", "HistoryEntry.id >= after",
        "tests/database/api/test_paging.py", "exported_page_by_page",
    ),
    Bug(
        "a checkpoint that cannot be stored is read",
        "vault/checkpoint.py",
        "isprintable() and _is_moment(at)", "isprintable()",
        "tests/unit/vault/test_parsing.py", "checkpoint_that_the_database",
    ),
    Bug(
        "what one keystore has answered costs all others of its round their results",
        "control_plane/monitoring/runner.py",
        "            if is_away(error):\n                raise", "            if is_away(error) or error:\n                raise",
        "tests/database/monitoring/test_runner.py", "costs_no_other",
    ),
    Bug(
        "who is counted at a time does not see the others",
        "control_plane/escrow/quota.py",
        "                self._under_way[owner.id] += more", "                self._under_way[owner.id] += 0",
        "tests/database/escrow/test_quota.py", "many_at_a_time",
    ),
    Bug(
        "who ends while keys are counted is seen nowhere",
        "control_plane/escrow/quota.py",
        "left = self._most - under_way - ledger.count_keys(session, owner)",
        "left = self._most - ledger.count_keys(session, owner) - self._under_way[owner.id]",
        "tests/database/escrow/test_quota.py", "who_ends_while",
    ),
    Bug(
        "a server that brings copies back is cleaned for ever",
        "control_plane/keystores/removal.py",
        "        for _ in range(_MOST_PASSES):", "        while True:",
        "tests/unit/keystores/test_removal.py", "not_for_ever",
    ),
    Bug(
        "a server that does not answer lets each mail wait",
        "control_plane/notifications/outbox.py",
        "            away.set()\n", "",
        "tests/database/notifications/test_mail.py", "one_wait",
    ),
    Bug(
        "a destroy that is refused turns the alerts off",
        "resources/health_monitor.py",
        "pulumi.ResourceOptions(deleted_with=keystore), opts)", "pulumi.ResourceOptions(), opts)",
        "tests/integration/test_pulumi.py", "destroy_is_refused",
    ),
    Bug(
        "a monitor that is set again sends twenty mails at once",
        "control_plane/monitoring/rehearsal.py",
        "if tests and timedelta(0) <= now - tests[0] < _APART:", "if tests and False:",
        "tests/database/monitoring/test_rehearsal.py", "set_again",
    ),
    Bug(
        "each part of a body that is wrong makes an error of its own",
        "control_plane/api/access.py",
        "        if isinstance(sent, dict):\n            if len", "        if sent is None:\n            if len",
        "tests/database/api/test_admission.py", "holds_too_much",
    ),
    Bug(
        "an answer may come byte by byte",
        "vault/transport.py",
        "        if handle.pieces > _PIECES + handle.taken // _BYTES_A_PIECE:\n            return 0\n", "",
        "tests/unit/vault/test_transport.py", "crumbs",
    ),
    Bug(
        "a name leads to as many servers as it likes",
        "vault/resolver.py",
        "if len(ips) > MOST_ADDRESSES:", "if not ips:",
        "tests/unit/vault/test_resolver.py", "crowd",
    ),
    Bug(
        "one organization is looked through at a time",
        "control_plane/keystores/verification.py",
        "self._turns.take([(due.id, due)], lambda owner: self._verify(owner, now + _LEAST_S + keys * _SLOWEST_KEY_S))",
        "self._verify(due, now + _LEAST_S + keys * _SLOWEST_KEY_S)",
        "tests/database/keystores/test_work.py", "for_an_hour",
    ),
    Bug(
        "cheap requests cost an organization nothing",
        "control_plane/api/admission.py",
        "end_turn(actor, pay(meter.owed_s),", "end_turn(actor, 0.0,",
        "tests/database/api/test_admission.py", "share_of_the_processor",
    ),
    Bug(
        "what is used while nobody else asks is held against an organization afterwards",
        "control_plane/api/pacing.py",
        "now if alone else now + _LONGEST_S", "now + _LONGEST_S",
        "tests/unit/api/test_pacing.py", "alone_owes_nothing",
    ),
    Bug(
        "what threads do for a request is counted for nobody",
        "control_plane/api/admission.py",
        "        meter.attach()  #", "        #",
        "tests/database/api/test_admission.py", "what_a_request_costs",
    ),
    Bug(
        "a token of an organization has paths without a share",
        "control_plane/api/admission.py",
        "(whose := request.state.actor.organization or organization)", "(whose := organization)",
        "tests/database/api/test_admission.py", "takes_of_its_share",
    ),
    Bug(
        "to be recognised costs an organization nothing",
        "control_plane/api/admission.py",
        "elif acquainted is not None and whose is not None:", "elif False:",
        "tests/database/api/test_admission.py", "who_was_here_before",
    ),
    Bug(
        "a form of another site makes its visitor unknown",
        "control_plane/api/admission.py",
        "except NotAuthenticated as error:", "except KeystoreError as error:",
        "tests/database/api/test_admission.py", "makes_nobody_unknown",
    ),
    Bug(
        "clients hold up people by what they cost",
        "control_plane/api/queues.py",
        "            free_at = self._peoples.pay(", "            self._peoples.pay(",
        "tests/unit/api/test_queues.py", "holds_up_no_person",
    ),
    Bug(
        "somebody rests in a gate that others wait for",
        "control_plane/runtime/gate.py",
        "            self._passing[organization_id] += 1\n        try:\n            with without_rest():",
        "            self._passing[organization_id] += 1\n        try:\n            if True:",
        "tests/unit/runtime/test_gate.py", "nobody_rests",
    ),
    Bug(
        "a health check that is asked for rests",
        "control_plane/monitoring/runner.py",
        "with Transport() as transport, without_rest():  #", "with Transport() as transport:  #",
        "tests/database/monitoring/test_runner.py", "rests_never",
    ),
    Bug(
        "a connection is ended twice",
        "control_plane/keystores/connections.py",
        "if connection not in self._retired:", "if False:",
        "tests/unit/keystores/test_connections.py", "not_ended_again",
    ),
    Bug(
        "who was recognised once is allowed for ever",
        "control_plane/api/admission.py",
        "request, receive, send, doorkeeper)", "request, receive, send)",
        "tests/database/api/test_admission.py", "has_ended_is_refused",
    ),
    Bug(
        "people wait behind clients of a keystore that is down",
        "control_plane/api/queues.py",
        "share - int(share * _KEPT)", "share",
        "tests/database/api/test_admission.py", "people_do_not_wait",
    ),
    Bug(
        "a token signs in as fast as it likes",
        "control_plane/console/pages.py",
        "async with _turnstile.passing(token.strip().removeprefix(PREFIX)):", "if True:",
        "tests/database/api/test_admission.py", "signs_in_once",
    ),
    Bug(
        "a refusal for want of room is asked for again at once",
        "control_plane/api/admission.py",
        "            await asyncio.sleep(_HELD_S)\n", "",
        "tests/database/api/test_admission.py", "for_want_of_room",
    ),
    Bug(
        "a long request is charged when it ends",
        "control_plane/api/pacing.py",
        "        transport.rest.set(self.rest)\n", "",
        "tests/unit/api/test_pacing.py", "charged_while_it_does",
    ),
    Bug(
        "a list of names has no end",
        "vault/listing.py",
        "                if self._left < 0:\n", "                if self._left is None:\n",
        "tests/unit/vault/test_listing.py", "longer_than_it_can_be",
    ),
    Bug(
        "the latest checkpoint is missed behind many older ones",
        "vault/archive_keys.py",
        "_MOST_CHECKPOINTS: Final = 20_000", "_MOST_CHECKPOINTS: Final = 200",
        "tests/unit/vault/test_session.py", "latest_checkpoint",
    ),
    Bug(
        "connections of a keystore that does not answer hold up those of others",
        "control_plane/keystores/connections.py",
        "[(connection.organization_id, connection)", "[(1, connection)",
        "tests/unit/keystores/test_connections.py", "no_other_organization",
    ),
    Bug(
        "an organization migrates as often as it likes",
        "control_plane/migration/lifecycle.py",
        "if actor.organization is not None:", "if False:",
        "tests/database/migration", "so_often_in_an_hour",
    ),
    Bug(
        "a token that was ended stays written down",
        "vault/session.py",
        "        if response.status in OK and token.ended:\n            token.ended()\n", "",
        "tests/unit/vault/test_place.py", "when_it_was_ended",
    ),
    Bug(
        "clean-ups of others wait for one that does not end",
        "control_plane/runtime/background.py",
        "wait(begun, TURN_S)", "wait(begun)",
        "tests/unit/runtime/test_background.py", "nobody_waits_for_an_owner",
    ),
    Bug(
        "work that fails looks as if it had ended well",
        "control_plane/runtime/background.py",
        "            work.call()\n            turns", "            turns[work.name] = time.time()\n            work.call()\n            turns",
        "tests/unit/runtime/test_background.py", "falls_behind",
    ),
]  # fmt: skip


def main() -> int:
    """Print a line for each bug, and how many were caught."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", default=[""], nargs="*", help="run the bugs whose names contain one of these")
    parser.add_argument("--uv", default=os.environ.get("UV", "uv"), help="path of uv")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if any(part in bug.name for part in options.only)]
    caught = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        sync = [options.uv, "sync", "--frozen", "--quiet", "--system-certs"]
        subprocess.run(sync, cwd=copy, check=True, env=environment)
        for number, bug in enumerate(bugs, 1):
            path = copy / "pulumi_keystore" / bug.file
            right = path.read_text()
            if right.count(bug.right) != 1:
                print(f"{bug.name}: {bug.file} does not hold what is to be changed", file=sys.stderr)
                return 2
            path.write_text(right.replace(bug.right, bug.wrong))
            begun = time.monotonic()
            command = [
                ".venv/bin/python",
                "-m",
                "pytest",
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                bug.test,
                "-k",
                bug.only,
            ]
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            path.write_text(right)
            lines = [
                line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR ")) and "::" in line
            ]
            # A test that failed has caught it; one that could not even run has not.
            by = lines[0].split("::")[-1].split(" - ")[0] if lines else done.stdout.strip().splitlines()[-1]
            good = done.returncode == 1 and bool(lines) and lines[0].startswith("FAILED")
            caught += good
            seconds = time.monotonic() - begun
            print(f"{number:2} {'caught' if good else 'MISSED'}  {bug.name}: {by} ({seconds:.0f} s)", flush=True)
    print(f"{caught}/{len(bugs)}")
    return 0 if caught == len(bugs) else 1


if __name__ == "__main__":
    sys.exit(main())
