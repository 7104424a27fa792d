"""The console in a real browser: every page and form, with good and with bad input."""

import json
import os
import re
import secrets
import subprocess
from base64 import b64decode, b64encode
from urllib.parse import quote

import httpx
import pytest
from keystore_harness import Tenancy, wait_until
from keystore_harness.tenancy import key_name
from keystore_harness.tenant import Tenant
from playwright.sync_api import expect

from pulumi_keystore.control_plane.console import keystore_forms, migration_forms, organization_forms, pages
from pulumi_keystore.errors import RuleViolation
from tests.conftest import PASSWORD
from tests.unit.declarations.test_address import REFUSED

FIRST = "/keystores/first"
PAGES = [
    "", "/register", "/migrate", "/verify", "/recover", "/history",
    *(f"{FIRST}{form}" for form in ("", "/edit", "/alerts", "/accept-cluster", "/delete")),
]  # fmt: skip


# Signing in.


def test_a_wrong_token_is_refused_and_a_right_one_signs_in(desk, customer):
    acme = customer(keystores=("first",))
    one = desk(sign_in=False)
    one.open(f"/console/organizations/{acme.name}/history")
    expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()
    one.page.get_by_label("API token").fill("ks_0123456789abcdef_wrong")
    one.page.get_by_role("button", name="Sign in").click()
    expect(one.page.get_by_role("alert")).to_contain_text("not valid")
    one.page.get_by_label("API token").fill(one.token)
    one.page.get_by_role("button", name="Sign in").click()
    # It goes on to where it was going.
    expect(one.page.get_by_role("heading", name="Keystore History")).to_be_visible()
    one.page.get_by_role("button", name="Sign out").click()
    one.open_keystore(acme.name)
    expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_no_page_without_signing_in(testbed, customer):
    acme = customer(keystores=("first",))
    rooms = (pages, organization_forms, keystore_forms, migration_forms)
    with httpx.Client(base_url=testbed.service.url, timeout=60) as bare:
        seen = 0
        for route in [route for each in rooms for route in each.router.routes]:
            path = route.path.replace("{organization}", acme.name).replace("{form}", "csv")
            if "sign-in" in path or "static" in path:
                continue
            path = path.replace("{name}", "first")
            for method in route.methods:
                answer = bare.request(method, path)
                assert (answer.status_code, answer.headers["location"][:16]) == (303, "/console/sign-in"), path
                assert acme.name not in answer.text
                seen += 1
    assert seen >= 20


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example.com", "//evil.example.com", "/\\evil.example.com", "/console//evil", "/consoleevil",
     "javascript:alert(1)", "/console/\r\nLocation: x", "console", ""],
)  # fmt: skip
def test_signing_in_leads_to_no_other_place(testbed, admin_token, wanted):
    with httpx.Client(base_url=testbed.service.url, timeout=60) as bare:
        answer = bare.post("/console/sign-in", data={"token": admin_token, "next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/console"))
    assert admin_token not in cookie


def test_a_session_ends_with_its_token(desk, testbed, admin, customer):
    acme = customer(keystores=("first",))
    made = admin.request("POST", "tokens", body={"name": "short", "role": "viewer"})
    one = desk(made["token"])
    one.open_keystore(acme.name)
    expect(one.page.get_by_role("heading", name="Keystore", exact=True)).to_be_visible()
    admin.request("DELETE", "tokens", made["id"])
    one.page.reload()
    expect(one.page.get_by_role("heading", name="Sign in")).to_be_visible()


# Looking.


def test_an_outage_shows_by_itself_with_what_to_do(desk, customer, testbed):
    acme = customer(keys=2, keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    page = one.page
    expect(page.get_by_text("Online", exact=False).first).to_be_visible()
    expect(page.get_by_text(testbed.vaults["a"].address)).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("60 bars: "))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("How long tests took"))).to_be_visible()
    expect(page.get_by_text("No incident in the last 90 days.")).to_be_visible()
    expect(page.get_by_text("Server certificate")).to_be_visible()
    # Times are the reader's own.
    assert page.locator("time").first.get_attribute("title").endswith("UTC")
    with testbed.servers["a"].sealed_for_a_while():
        expect(page.get_by_text("Offline / Host unavailable")).to_be_visible()
        expect(page.get_by_text("Sealed: unseal the server").first).to_be_visible()
        expect(page.get_by_text("bao operator unseal")).to_be_visible()
        expect(page.locator(".bar.offline[title*='sealed']").first).to_be_attached()
        # An incident begins, and is still under way.
        expect(page.get_by_role("row", name=re.compile("sealed: unseal the server"))).to_contain_text("for ")
    expect(page.get_by_text("Offline / Host unavailable")).to_have_count(0)
    page.get_by_role("link", name="24 h").click()
    # Two, where a quarter of an hour ended meanwhile.
    expect(page.get_by_role("img", name=re.compile("96 bars: .* [12] partly offline"))).to_be_visible()
    page.get_by_role("link", name="30 days").click()
    expect(page.get_by_role("img", name=re.compile("120 bars: "))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("sealed: unseal the server"))).to_be_visible()


@pytest.mark.parametrize("path", ["", FIRST], ids=["organization", "keystore"])
def test_a_page_whose_service_is_gone_says_since_when(desk, customer, testbed, path):
    acme = customer(keystores=("first",))
    one = desk()
    one.open(f"/console/organizations/{acme.name}{path}")
    notice = one.page.get_by_text(re.compile(r"Not refreshed since \d+:\d+ [AP]M: the service does not answer"))
    expect(one.page.get_by_text("Online", exact=False).first).to_be_visible()
    expect(notice).to_have_count(0)
    with testbed.service.stopped():
        expect(notice).to_be_visible()
        # What was known is still there.
        expect(one.page.get_by_role("heading", name="first")).to_be_visible()
    expect(notice).to_have_count(0)


def test_the_page_of_a_keystore_follows_what_happens_to_it(desk, customer, testbed):
    acme = customer(keystores=("first", "second"))
    one = desk()
    one.open(f"/console/organizations/{acme.name}/keystores/second?period=day")
    page = one.page
    title = f"second of {acme.name} · Administration"
    expect(page).to_have_title(title)
    with testbed.servers["b"].sealed_for_a_while():
        expect(page.get_by_text("Offline / Host unavailable")).to_be_visible()
        expect(page.get_by_text("it is tested every minute")).to_be_visible()
        expect(page).to_have_title(f"Offline: {title}")
    expect(page.get_by_text("Offline / Host unavailable")).to_have_count(0)
    expect(page).to_have_title(title)
    # It is still the period that was chosen, and its buttons say what they do.
    expect(page.get_by_role("img", name=re.compile("96 bars: "))).to_be_visible()
    page.get_by_role("button", name="Test now").click()
    expect(page.locator(".saved")).to_contain_text(re.compile("was tested now|A test of this keystore is under way"))
    acme.admin.delete_keystore(acme.name, "second")
    expect(page.get_by_text("has no keystore 'second'")).to_be_visible()


def test_a_provider_keystore_shows_no_url_and_no_status(desk, customer, testbed):
    acme = customer(keystores=())
    acme.register("first", kind="provider")
    one = desk()
    one.open_keystore(acme.name)
    expect(one.page.get_by_text("run by the provider")).to_be_visible()
    text = one.page.locator("main").inner_text()
    assert "vault-a" not in text
    assert "Reliability" not in text
    one.page.get_by_text("Actions", exact=True).click()
    expect(one.page.get_by_role("link", name="Migrate Keystore")).to_be_visible()


def test_a_keystore_of_the_provider_is_edited_by_the_provider_alone(desk, customer, testbed):
    acme = customer(keystores=())
    acme.register("first", kind="provider")
    theirs = desk(testbed.service.make_token("theirs", "customer-cloud-admin", acme.name))
    theirs.open_keystore(acme.name)
    theirs.page.get_by_text("Actions", exact=True).click()
    expect(theirs.page.get_by_role("link", name="Edit Keystore")).to_have_count(0)
    theirs.open(f"/console/organizations/{acme.name}/keystores/first")
    expect(theirs.page.get_by_role("button", name="Prove now")).to_be_visible()
    expect(theirs.page.get_by_role("link", name="Edit", exact=True)).to_have_count(0)
    ours = desk()
    ours.open(f"/console/organizations/{acme.name}/keystores/first")
    ours.page.get_by_role("link", name="Edit", exact=True).click()
    expect(ours.page.get_by_label("URL")).to_have_value(testbed.vaults["a"].address)


def test_a_viewer_changes_nothing(desk, customer, testbed):
    acme = customer(keystores=("first",))
    one = desk(testbed.service.make_token("looker", "viewer"))
    one.open_keystore(acme.name)
    one.page.get_by_text("Actions", exact=True).click()
    expect(one.page.get_by_role("link", name="View Keystore History")).to_be_visible()
    expect(one.page.get_by_role("link", name="Edit Keystore")).to_have_count(0)
    one.open(f"/console/organizations/{acme.name}{FIRST}/edit")
    expect(one.page.get_by_role("heading")).to_contain_text("may not change keystores")


def test_an_administrator_of_one_organization_sees_no_other(desk, customer, testbed):
    acme, other = customer(keystores=("first",)), customer(keystores=("first",))
    one = desk(testbed.service.make_token("team", "customer-cloud-admin", acme.name))
    expect(one.page.get_by_text(acme.name).first).to_be_visible()
    one.open_keystore(other.name)
    expect(one.page.get_by_role("heading")).to_contain_text("here is no organization")


def test_history_with_its_exports(desk, customer):
    acme = customer(keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    one.action("View Keystore History")
    expect(one.page.get_by_role("cell", name="Keystore registered")).to_be_visible()
    with one.page.expect_download() as download:
        one.page.get_by_role("link", name="CSV").click()
    rows = download.value.path().read_text().splitlines()
    assert rows[0] == "Date & Time,User,Action,Action Details"
    assert 'ops,Keystore registered,"first: https://vault-a' in rows[1]
    with one.page.expect_download() as download:
        one.page.get_by_role("link", name="JSON").click()
    assert json.loads(download.value.path().read_text())[0]["action"] == "Keystore registered"


# Forms.


def test_edit_says_what_is_wrong_and_then_swaps(desk, customer, testbed, pfx):
    acme = customer(keys=3, keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    one.action("Edit Keystore")
    page, before = one.page, acme.admin.keystore(acme.name, "first")

    def save(url=None, file=None, password=""):
        if url is not None:
            page.get_by_label("URL").fill(url)
        if file:
            page.get_by_label("New client certificate").set_input_files(file)
        page.get_by_label("Password of the file").fill(password)
        page.get_by_role("button", name="Continue").click()

    for url, rule in (
        ("https://127.0.0.1:8200", "KS004"),
        ("https://0x7f.1:8200", "KS004"),
        ("http://vault.example.com:8200", "KS001"),
        ("https://vault.example.com:8200/v1", "KS003"),
        ("https://vault.example.com", "KS002"),
    ):
        save(url)
        expect(page.get_by_role("alert")).to_contain_text(rule)
        expect(page.get_by_role("alert")).to_contain_text("Nothing has been changed")
        expect(page.get_by_label("URL")).to_have_value(url)
    # Another server that does not have the keys: it says what to do instead.
    acme.admit("second")
    save(testbed.vaults["b"].address)
    expect(page.get_by_role("alert")).to_contain_text("lacks 3 of the 3 archive keys")
    expect(page.get_by_role("alert")).to_contain_text("migrate to it instead (Actions, Migrate Keystore)")
    save(before["address"], pfx(acme.name), "wrong")
    expect(page.get_by_role("alert")).to_contain_text("KS011")
    save(file={"name": "x.p12", "mimeType": "x/y", "buffer": b"-----BEGIN NOTHING-----"}, password="x")
    expect(page.get_by_role("alert")).to_contain_text("KS010")
    save(file=pfx("somebody-else"), password=PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("refuses this client certificate")
    assert acme.admin.keystore(acme.name, "first") == before
    save(file=pfx(acme.name), password=PASSWORD)
    # What was verified is shown, and nothing is changed until it is confirmed.
    expect(page.get_by_role("heading", name="Verified. Use the new settings?")).to_be_visible()
    expect(page.get_by_text("3 checked, all found and equal")).to_be_visible()
    assert acme.admin.keystore(acme.name, "first") == before
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".saved")).to_contain_text("the new settings, and they are in use")
    after = acme.admin.keystore(acme.name, "first")
    assert after["certificate_fingerprint"] != before["certificate_fingerprint"]
    expect(page.get_by_text(after["certificate_fingerprint"])).to_be_visible()
    # And the address alone, with the certificate that is in use.
    page.get_by_role("link", name="Edit", exact=True).click()
    save(before["address"].upper().replace("HTTPS", "https"))
    expect(page.get_by_role("heading", name="Verified. Nothing would change")).to_be_visible()
    page.get_by_role("link", name="Back").click()
    assert acme.actions.count("Keystore edited") == 1
    assert acme.released(next(iter(acme.keys))) == next(iter(acme.keys.values()))


def test_a_second_keystore_is_registered_proved_watched_and_deleted(desk, customer, testbed, pfx):
    acme = customer(keys=2, keystores=("first",))
    acme.admit("second")
    one = desk()
    one.open_keystore(acme.name)
    one.action("Register Keystore")
    page = one.page

    def register(address):
        page.get_by_label("Name", exact=False).first.fill("the second")
        page.get_by_label("URL").fill(address)
        page.get_by_label("Client certificate").set_input_files(pfx(acme.name))
        page.get_by_label("Password of the file").fill(PASSWORD)
        page.get_by_label("Server CA").fill(testbed.ca.pem)
        page.get_by_role("button", name="Register").click()

    register("https://10.0.0.1:8200")
    expect(page.get_by_role("alert")).to_contain_text("KS004")
    register(testbed.vaults["a"].address)
    expect(page.get_by_role("alert")).to_contain_text("at this very place already")
    assert [row["name"] for row in acme.admin.keystores(acme.name)] == ["first"]
    register(testbed.vaults["b"].address)
    expect(page.locator(".saved")).to_contain_text("proved and registered")
    expect(page.get_by_text("not active")).to_be_visible()
    assert acme.active == "first"
    proved = acme.admin.keystore(acme.name, "the second")["proved_at"]
    page.get_by_role("button", name="Prove now").click()
    expect(page.locator(".saved")).to_contain_text("The keystore was proved")
    assert acme.admin.keystore(acme.name, "the second")["proved_at"] > proved
    # One that cannot be relied on says so on its page.
    with testbed.servers["b"].sealed_for_a_while():
        page.get_by_role("button", name="Prove now").click()
        expect(page.get_by_role("alert")).to_contain_text("sealed")
        one.open_keystore(acme.name)
        row = page.get_by_role("row", name=re.compile("the second"))
        expect(row).to_contain_text("Offline / Host unavailable")
    row.get_by_role("link").click()
    page.get_by_role("link", name="Edit Alerts").click()
    page.get_by_label("E-mail addresses").fill("a@example.com")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("a@example.com")).to_be_visible()
    page.get_by_role("link", name="Delete").click()
    expect(page.get_by_text("Nothing is deleted on its server.")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".saved")).to_contain_text("The registration was deleted")
    assert [row["name"] for row in acme.admin.keystores(acme.name)] == ["first"]
    # The one that holds the keys is not to be deleted.
    one.open(f"/console/organizations/{acme.name}{FIRST}")
    expect(page.get_by_role("link", name="Delete")).to_have_count(0)
    one.open(f"/console/organizations/{acme.name}{FIRST}/delete")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("alert")).to_contain_text("is active and holds 2 archive keys")


def test_an_edit_is_confirmed_in_the_session_and_for_the_keystore_it_was_verified_for(
    signed_in, customer, testbed, admin_token
):
    acme = customer(keys=1)
    path, token = f"/console/organizations/{acme.name}/keystores", form_token(signed_in, acme.name)
    upload = {"certificate": ("acme.p12", testbed.ca.issue(acme.name).pkcs12(PASSWORD))}
    fields = {"address": testbed.vaults["a"].address, "server_ca": testbed.ca.pem, "certificate_password": PASSWORD}
    shown = signed_in.post(f"{path}/first/edit", data={"form_token": token, **fields}, files=upload)
    assert shown.status_code == 200
    assert PASSWORD not in shown.text
    draft = re.search(r'name="draft" value="([^"]+)"', shown.text)[1]
    with httpx.Client(base_url=testbed.service.url, timeout=60) as other:
        other.post("/console/sign-in", data={"token": admin_token})
        elsewhere = {"form_token": form_token(other, acme.name), "draft": draft}
        refused = [other.post(f"{path}/first/edit/save", data=elsewhere)]
    mine = {"form_token": token, "draft": draft}
    refused += [
        signed_in.post(f"{path}/second/edit/save", data=mine),
        signed_in.post(f"{path}/first/edit/save", data={**mine, "draft": draft[:-8] + "AAAAAAAA"}),
        signed_in.post(f"{path}/first/edit/save", data={"form_token": token}),
    ]
    assert [answer.status_code for answer in refused] == [409] * 4
    assert "Keystore edited" not in acme.actions
    # The server that was verified may be another one by the time it is confirmed: it is proved again.
    with testbed.servers["a"].sealed_for_a_while():
        assert signed_in.post(f"{path}/first/edit/save", data=mine).status_code == 424
    assert "Keystore edited" not in acme.actions
    assert signed_in.post(f"{path}/first/edit/save", data=mine).status_code == 303
    assert acme.actions.count("Keystore edited") == 1


@pytest.mark.parametrize("word", ["<script>alert(1)</script>", "edited'", "../x", "nothing"])
def test_a_page_says_nothing_that_a_link_puts_into_its_mouth(signed_in, customer, word):
    acme = customer(keystores=("first",))
    for path in ("", FIRST):
        answer = signed_in.get(f"/console/organizations/{acme.name}{path}", params={"saved": word})
        assert (answer.status_code, 'class="saved"' in answer.text, word in answer.text) == (200, False, False)


def test_many_organizations_come_a_page_at_a_time_and_are_searched(desk, admin):
    prefix = f"many-{secrets.token_hex(3)}"
    for number in range(51):
        admin.put_organization(f"{prefix}-{number:03}")
    one = desk()
    one.open(f"/console?search={prefix}")
    page = one.page
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Next page").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("link", name=f"{prefix}-050")).to_be_visible()
    page.get_by_label("Name contains").fill(f"{prefix}-04")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(10)
    page.get_by_label("Name contains").fill("<b>nobody")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No organization's name contains this.")).to_be_visible()
    for number in range(51):
        admin.delete_organization(f"{prefix}-{number:03}")


def test_organizations_with_problems_come_first_and_can_be_listed_alone(desk, customer):
    acme, fine = customer(keystores=("first",)), customer(keystores=("first",))
    fine.admin.put_monitor(fine.name, "first", {"recipients": ["a@example.com"]})
    one = desk()
    one.open("/console")
    page = one.page
    # The worst ten, whoever they are.
    expect(page.get_by_role("table", name="Organizations to look after")).to_be_visible()
    page.get_by_role("link", name=re.compile("^No alerts")).click()
    expect(page.get_by_role("table", name="No alerts")).to_be_visible()

    def lists(organization):
        one.open(f"/console?problem=no-alerts&search={organization}")
        return page.get_by_role("link", name=organization)

    expect(lists(acme.name)).to_be_visible()
    expect(lists(fine.name)).to_have_count(0)
    # Somebody is told, and so it is no problem any more.
    acme.admin.put_monitor(acme.name, "first", {"recipients": ["a@example.com"]})
    expect(lists(acme.name)).to_have_count(0)
    one.open(f"/console?search={acme.name}")
    expect(page.get_by_role("table", name="All organizations").get_by_role("link", name=acme.name)).to_be_visible()


def test_migrate_to_a_registered_keystore_with_progress_and_banner(desk, customer, testbed):
    acme = customer(keys=200)
    one, page = desk(), None
    one.open_keystore(acme.name)
    one.action("Migrate Keystore")
    page = one.page
    page.get_by_label(re.compile("second self-administered")).check()
    modes = page.get_by_role("group", name="During the migration")
    expect(modes.get_by_role("radio")).to_have_count(2)
    # Whom to notify is asked for: left out it is not, not even past the browser's own check.
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_label("E-mail address")).to_be_focused()
    page.get_by_label("E-mail address").evaluate("field => field.required = false")
    for text in ("", "nobody"):
        page.get_by_label("E-mail address").fill(text)
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_contain_text("KS033")
        expect(page.get_by_role("alert")).to_contain_text("or none for no one")
        page.get_by_label("E-mail address").evaluate("field => field.required = false")
    page.get_by_label(re.compile("second self-administered")).check()
    page.get_by_label("E-mail address").fill("ops@example.com")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Migrate 200 archive keys?")).to_be_visible()
    # It must not be over before a browser on a busy machine has shown it.
    with testbed.servers["b"].rate_limited(20):
        page.get_by_role("button", name="Start the migration").click()
        expect(page.get_by_role("heading", name="Migration in progress")).to_be_visible()
        expect(page.get_by_text(re.compile("[0-9,]+ of 200"))).to_be_visible()
        for path in ("", FIRST, f"{FIRST}/alerts", "/history"):
            one.open(f"/console/organizations/{acme.name}{path}")
            expect(page.locator(".banner")).to_contain_text("are migrating")
        # What would be refused is not offered, and says why where it is opened all the same.
        for path in (f"{FIRST}/edit", f"{FIRST}/delete", "/migrate"):
            one.open(f"/console/organizations/{acme.name}{path}")
            expect(page.get_by_role("heading")).to_contain_text("is in maintenance")
        one.open_keystore(acme.name)
        page.get_by_text("Actions", exact=True).click()
        expect(page.get_by_role("link", name="View Keystore History")).to_be_visible()
        expect(page.get_by_role("link", name="Edit Keystore")).to_have_count(0)
        expect(page.get_by_role("link", name="Migrate Keystore")).to_have_count(0)
        one.open("/console")
        expect(page.locator(".banner")).to_contain_text(acme.name)
        one.open_keystore(acme.name)
    expect(page.get_by_text("Migration succeeded")).to_be_visible(timeout=200_000)
    expect(page.locator(".banner")).to_have_count(0)
    acme.assert_complete("second", empty="first")
    # For five minutes nothing is known.
    assert acme.actions[-1] == "Migration succeeded"


def test_what_a_migration_left_behind_says_why_and_is_removed_when_it_can_be(desk, customer, testbed):
    acme = customer(keys=3)
    place, left = Tenant(testbed.vaults["a"], acme.tenancy("first"), 1), "Keys are still being removed"
    one = desk()
    with place.may_not_delete():
        assert acme.migrate("second")["clean_up_pending"] == ["source"]
        one.open_keystore(acme.name)
        expect(one.page.get_by_role("heading", name=left)).to_be_visible()
        expect(one.page.get_by_role("listitem").filter(has_text="may not delete")).to_be_visible()
        one.page.get_by_role("button", name="Try again now").click()
        expect(one.page.get_by_role("heading")).to_contain_text("ay not delete")
    one.open_keystore(acme.name)
    expect(one.page.get_by_role("heading", name=left)).to_have_count(0, timeout=60_000)
    acme.assert_complete("second", empty="first")


def test_a_migration_is_canceled(desk, customer, testbed):
    acme = customer(keys=200)
    with testbed.servers["b"].rate_limited(20):
        acme.start_and_wait_for("second", 1)
        one = desk()
        one.open_keystore(acme.name)
        one.page.get_by_role("button", name="Cancel the migration").click()
    expect(one.page.get_by_text("Migration canceled by ops")).to_be_visible(timeout=120_000)
    acme.assert_complete("first", empty="second")


def fill_in_a_new_keystore(page, address, file, password, server_ca, **further):
    page.get_by_label("A new keystore").check()
    page.get_by_label("Name", exact=False).first.fill("brand new")
    page.get_by_label("URL").fill(address)
    page.get_by_label("Client certificate").set_input_files(file)
    page.get_by_label("Password of the file").fill(password)
    page.get_by_label("Server CA").fill(server_ca)
    if further:
        page.get_by_text("Namespace, mount and role").click()
    for label, value in further.items():
        page.get_by_label(label).fill(value)
    page.get_by_label("E-mail address").fill("none")
    page.get_by_role("button", name="Continue").click()


def test_migrate_to_a_new_keystore_with_an_upload(desk, customer, testbed, pfx):
    acme = customer(keys=5, keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    one.action("Migrate Keystore")
    page = one.page

    def fill(address, password):
        fill_in_a_new_keystore(page, address, pfx(acme.name), password, testbed.ca.pem)

    fill("https://[::1]:8200", PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("KS004")
    fill(testbed.vaults["b"].address, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("KS011")
    # The same server under the name it has: told before anything is registered.
    fill(testbed.vaults["a"].address, PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("at this very place already")
    fill(testbed.vaults["b"].address, PASSWORD)
    expect(page.get_by_role("button", name="Start the migration")).to_be_visible()
    # Nothing is registered before the start, and what is not started leaves nothing.
    assert [row["name"] for row in acme.admin.request("GET", "organizations", acme.name, "keystores")] == ["first"]
    assert acme.stored("second") == {}
    assert "PRIVATE KEY" not in page.content()
    page.get_by_role("button", name="Start the migration").click()
    expect(page.get_by_text("Migration succeeded")).to_be_visible(timeout=120_000)
    assert acme.active == "brand new"


def test_migrate_to_a_new_keystore_in_a_namespace(desk, customer, testbed, pfx):
    acme = customer(keys=2, keystores=("first",))
    testbed.admit("b", Tenancy(acme.name, "kv/keys", namespace=acme.name), 1)
    one = desk()
    one.open_keystore(acme.name)
    one.action("Migrate Keystore")
    page = one.page
    where = {"Namespace": f"{acme.name}/", "KV mount": "kv/keys"}
    fill_in_a_new_keystore(page, testbed.vaults["b"].address, pfx(acme.name), PASSWORD, testbed.ca.pem, **where)
    expect(page.get_by_role("alert")).to_contain_text("KS044")
    page.get_by_label("Namespace").fill(acme.name)
    page.get_by_label("Client certificate").set_input_files(pfx(acme.name))
    page.get_by_label("Password of the file").fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text(f"namespace {acme.name}")).to_be_visible()
    page.get_by_role("button", name="Start the migration").click()
    expect(page.get_by_text("Migration succeeded")).to_be_visible(timeout=120_000)
    expect(page.get_by_text(f"namespace {acme.name}")).to_be_visible()
    one.action("Edit Keystore")
    expect(page.get_by_text(f"namespace {acme.name}")).to_be_visible()


def test_a_start_that_is_refused_leaves_no_keystore_behind(desk, customer, testbed, pfx):
    acme = customer(keys=2, keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    one.action("Migrate Keystore")
    page = one.page
    file = pfx(acme.name)
    fill_in_a_new_keystore(page, testbed.vaults["b"].address, file, PASSWORD, testbed.ca.pem)
    button = page.get_by_role("button", name="Start the migration")
    expect(button).to_be_visible()
    # What nobody knew when the page was made: somebody else's key lies there now.
    place = Tenant(testbed.vaults["b"], acme.tenancy("second"), 1)
    place.put("mzqxg.1", {"of": "others"})
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("holds 1 entry")
    assert [row["name"] for row in acme.admin.request("GET", "organizations", acme.name, "keystores")] == ["first"]
    assert place.names() == ["mzqxg.1"]
    acme.assert_complete("first")


def test_a_start_that_is_refused_leaves_the_keystore_that_somebody_else_has_registered(desk, customer, testbed, pfx):
    acme = customer(keys=2, keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    one.action("Migrate Keystore")
    file = pfx(acme.name)
    fill_in_a_new_keystore(one.page, testbed.vaults["b"].address, file, PASSWORD, testbed.ca.pem)
    button = one.page.get_by_role("button", name="Start the migration")
    expect(button).to_be_visible()
    content = b64encode(file["buffer"]).decode()
    declared = {**acme.declaration("second", mount=None), "certificate": content, "certificate_password": PASSWORD}
    acme.admin.put_keystore(acme.name, "brand new", declared)
    Tenant(testbed.vaults["b"], acme.tenancy("second"), 1).put("mzqxg.1", {"of": "others"})
    button.click()
    expect(one.page.get_by_role("alert")).to_contain_text("holds 1 entry")
    rows = acme.admin.request("GET", "organizations", acme.name, "keystores")
    assert [row["name"] for row in rows] == ["brand new", "first"]


def test_alerts_are_set_and_ended(desk, customer):
    acme = customer(keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    expect(one.page.get_by_text("no alerts when it is offline")).to_be_visible()
    one.action("Edit Alerts")
    page = one.page
    for recipients, minutes, says in (("", "5", "KS039"), ("nobody", "5", "KS033"), ("a@example.com", "61", "KS040"),
                                      ("a@example.com", "x", "not a whole number")):  # fmt: skip
        page.get_by_label("E-mail addresses").fill(recipients)
        page.get_by_label("Minutes offline").fill(minutes)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text(says)
    page.get_by_label("E-mail addresses").fill("a@example.com\nb@example.com")
    page.get_by_label("Minutes offline").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".saved")).to_contain_text("The alerts were saved.")
    expect(page.get_by_text("a@example.com, b@example.com")).to_be_visible()
    assert acme.admin.monitor(acme.name, "first")["offline_minutes"] == 7
    page.get_by_role("link", name="Edit Alerts").click()
    page.get_by_label("E-mail addresses").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("no alerts when it is offline")).to_be_visible()


def test_values_are_copied_and_the_theme_is_kept(desk, customer):
    acme = customer(keystores=("first",))
    one = desk(color_scheme="light", permissions=["clipboard-read", "clipboard-write"])
    page = one.page
    one.open(f"/console/organizations/{acme.name}{FIRST}")
    page.get_by_role("button", name="Copy URL").click()
    expect(page.get_by_role("button", name="Copy URL")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == acme.admin.keystore(acme.name, "first")["address"]
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    expect(page.get_by_role("button", name="Light")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.get_by_role("button", name="Light").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_the_tab_says_that_a_keystore_is_offline(desk, customer, testbed):
    acme = customer(keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    expect(one.page).to_have_title(f"{acme.name} · Administration")
    with testbed.servers["a"].sealed_for_a_while():
        expect(one.page).to_have_title(f"Offline: {acme.name} · Administration")
        assert "offline" in one.page.locator("link[rel=icon]").get_attribute("href")
    expect(one.page).to_have_title(f"{acme.name} · Administration")


def test_alerts_are_tested_and_a_webhook_is_set_and_removed(desk, customer):
    acme = customer(keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    one.action("Edit Alerts")
    page = one.page
    expect(page.get_by_role("button", name="Send a Test")).not_to_be_visible()
    page.get_by_label("E-mail addresses").fill("a@example.com")
    page.get_by_label("Webhook URL").fill("https://hooks.example.com/CANARY")
    page.get_by_label("Webhook format").select_option("PagerDuty")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Webhook format: the URL has no routing_key")
    page.get_by_label("Webhook URL").fill("https://hooks.example.com/CANARY")
    page.get_by_label("Webhook format").select_option("Slack, Mattermost")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("a@example.com, webhook at hooks.example.com")).to_be_visible()
    assert acme.admin.monitor(acme.name, "first")["webhook_format"] == "slack"
    page.get_by_role("link", name="Edit Alerts").click()
    assert "CANARY" not in page.content()
    page.get_by_role("button", name="Send a Test").click()
    answers = page.get_by_role("table", name="Answers to the latest test")
    expect(answers.get_by_role("row", name="webhook at hooks.example.com")).to_contain_text("not accepted")
    # To load the page again sends nothing.
    page.reload()
    expect(answers.get_by_role("row", name="webhook at hooks.example.com")).to_contain_text("not accepted")
    assert acme.actions.count("Health monitor tested") == 1
    page.get_by_role("button", name="Send a Test").click()
    expect(page.get_by_role("alert")).to_contain_text("less than a minute ago")
    page.get_by_label("Remove the webhook").check()
    page.get_by_label("Webhook format").select_option("PagerDuty")  # of no webhook
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".saved")).to_contain_text("The alerts were saved.")
    assert acme.admin.monitor(acme.name, "first")["webhook_host"] is None


def test_everything_works_without_javascript(desk, customer, testbed, pfx):
    acme = customer(keys=2)
    one = desk(java_script_enabled=False)
    one.open_keystore(acme.name)
    expect(one.page.get_by_text("UTC").first).to_be_visible()
    one.action("Edit Keystore")
    one.page.get_by_label("New client certificate").set_input_files(pfx(acme.name))
    one.page.get_by_label("Password of the file").fill(PASSWORD)
    one.page.get_by_role("button", name="Continue").click()
    one.page.get_by_role("button", name="Save").click()
    assert "Keystore edited" in acme.actions
    one.page.get_by_role("button", name="Prove now").click()
    expect(one.page.locator(".saved")).to_contain_text("The keystore was proved")
    one.open_keystore(acme.name)
    one.action("Migrate Keystore")
    one.page.get_by_label(re.compile("second self-administered")).check()
    one.page.get_by_label("E-mail address").fill("none")
    one.page.get_by_role("button", name="Continue").click()
    one.page.get_by_role("button", name="Start the migration").click()
    acme.finish(acme.admin.migrations(acme.name)[0])
    one.page.reload()
    expect(one.page.get_by_text("Migration succeeded")).to_be_visible()


# Attacks.


def test_what_others_wrote_is_text(desk, customer, testbed):
    acme = customer(keystores=("first",))
    evil = "<img src=x onerror=alert(1)><script>alert(2)<\\script>'\"{{7*7}}"
    acme.admit("second")
    acme.admin.put_keystore(acme.name, evil, acme.declaration("second"))
    one = desk(testbed.service.make_token(f"<b>{secrets.token_hex(2)}</b>", "provider-admin"))
    for path in PAGES:
        one.open(f"/console/organizations/{acme.name}{path}")
    for path in ("", "/edit", "/alerts", "/delete"):
        one.open(f"/console/organizations/{acme.name}/keystores/{quote(evil, safe='')}{path}")
        expect(one.page.get_by_text(evil).first).to_be_visible()
    one.open(f"/console/organizations/{acme.name}/history")
    expect(one.page.get_by_text(evil).first).to_be_visible()
    one.open(f"/console/organizations/{acme.name}/migrate")
    one.page.get_by_label(re.compile("img src")).check()
    one.page.get_by_label("E-mail address").fill("None")
    one.page.get_by_role("button", name="Continue").click()
    expect(one.page.get_by_text("onerror")).to_be_visible()
    assert one.page.locator("img[src=x]").count() == 0


@pytest.fixture
def signed_in(testbed, admin_token):
    with httpx.Client(base_url=testbed.service.url, timeout=60) as bare:
        bare.post("/console/sign-in", data={"token": admin_token})
        yield bare


def form_token(signed_in, organization):
    text = signed_in.get(f"/console/organizations/{organization}{FIRST}/alerts").text
    return re.search(r'name="form_token" value="([0-9a-f]+)"', text)[1]


def test_a_form_of_another_site_changes_nothing(signed_in, customer):
    acme = customer(keystores=("first",))
    path, good = f"/console/organizations/{acme.name}{FIRST}/alerts", form_token(signed_in, acme.name)
    fields = {"recipients": "a@example.com", "offline_minutes": "5", "repeat_hours": "24", "online_minutes": "5"}
    for data, headers in (
        (fields, {}),
        ({**fields, "form_token": "0" * 64}, {}),
        ({**fields, "form_token": "\u00e4"}, {}),
        ({**fields, "form_token": good}, {"Origin": "https://evil.example.com"}),
        ({**fields, "form_token": good}, {"Origin": "null"}),
        ({**fields, "form_token": good}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        assert signed_in.post(path, data=data, headers=headers).status_code == 403
    assert "Health monitor set" not in acme.actions
    assert signed_in.post(path, data={**fields, "form_token": good}).status_code == 303


def test_upload_bombs_are_refused_and_change_nothing(signed_in, customer, testbed):
    acme = customer(keystores=("first",))
    path, good = f"/console/organizations/{acme.name}{FIRST}/edit", form_token(signed_in, acme.name)
    fields = {"form_token": good, "address": testbed.vaults["a"].address}
    for size, status, says in ((2 << 20, 422, "KS016"), (9 << 20, 413, "larger")):
        answer = signed_in.post(path, data=fields, files={"certificate": ("x.p12", b"\x30" * size)})
        assert (answer.status_code, says in answer.text) == (status, True), answer.text[:500]
        assert answer.text.startswith("<!doctype html>")
        assert "Content-Security-Policy" in answer.headers
    many = {f"field-{number}": "x" for number in range(5000)}
    assert signed_in.post(path, data={**fields, **many}, files={"certificate": b""}).status_code in (400, 422)
    assert signed_in.post(path, data={"form_token": good, "address": "x" * 100_000}).status_code in (400, 422)
    assert signed_in.post(path, content=b"--x\r\n\r\nno form", headers={"Content-Type": "multipart/form-data; boundary=x"}).status_code in (400, 403, 422)  # fmt: skip
    assert "Keystore edited" not in acme.actions


def test_the_api_the_command_and_the_console_give_the_same_verdict(signed_in, customer, tmp_path, testbed):
    acme = customer(keystores=("first",))
    path, good = f"/console/organizations/{acme.name}{FIRST}/edit", form_token(signed_in, acme.name)
    addresses = [address for address in list(REFUSED)[::4] if address.isprintable() and address.strip() == address]
    declared = acme.declaration("first")
    (tmp_path / "acme.p12").write_bytes(b64decode(declared["certificate"]))
    entries = []
    for number, address in enumerate(addresses):
        with pytest.raises(RuleViolation) as raised:
            acme.admin.swap_keystore(acme.name, "first", {**declared, "address": address})
        sent = signed_in.post(path, data={"form_token": good, "address": address, "server_ca": declared["server_ca"]})
        assert (sent.status_code, raised.value.rule) == (422, REFUSED[address]), address
        assert f"<code>{REFUSED[address]}</code>" in sent.text, address
        entries.append({"organization": acme.name, "name": f"k{number}", "kind": "provider", "address": address,
                        "certificate": "acme.p12", "certificate_password_env": "CHECK_PASSWORD"})  # fmt: skip
    (tmp_path / "all.json").write_text(json.dumps({"keystores": entries}))
    command = [*testbed.service.command, "check", str(tmp_path / "all.json"), "--format", "json"]
    environment = {**os.environ, "CHECK_PASSWORD": PASSWORD}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=120)
    found = {row["resource"]: row["id"] for row in json.loads(done.stdout) if row["level"] == "error"}
    assert found == {f"keystore k{number}": REFUSED[address] for number, address in enumerate(addresses)}
    assert len(addresses) > 15


def test_pages_may_not_be_framed_and_load_nothing_foreign(signed_in, customer):
    acme = customer(keystores=("first",))
    answer = signed_in.get(f"/console/organizations/{acme.name}")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.findall(r'(?:src|href|action)="(?!/|#)', answer.text)


@pytest.mark.parametrize("path", ["/console/static/../access.py", "/console/static/%2e%2e%2faccess.py", "/console/x"])
def test_nothing_else_is_served(signed_in, path):
    assert signed_in.get(path).status_code in (303, 404)


@pytest.mark.parametrize(
    ("path", "says"),
    [("/console/x", "no such page"), ("/console/organizations/none-such", "none-such")],
    ids=["page", "organization"],
)
def test_what_is_not_there_is_told_in_the_frame_of_who_is_signed_in(signed_in, path, says):
    answer = signed_in.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert says in answer.text
    assert "Sign out" in answer.text


def test_an_organization_without_a_keystore_to_watch_says_what_to_do(signed_in, admin, testbed):
    name = f"empty-{secrets.token_hex(3)}"
    for environment, says in (("federal", "The provider runs the keystore of a federal organization."),
                              ("cloud", "Register a keystore")):  # fmt: skip
        admin.put_organization(f"{name}-{environment}", environment)
        assert says in signed_in.get(f"/console/organizations/{name}-{environment}").text
    admin.put_keystore(f"{name}-cloud", "old", {"kind": "legacy"})
    page = signed_in.get(f"/console/organizations/{name}-cloud").text
    assert "The archive keys are in the provider's database" in page
    assert f'href="/console/organizations/{name}-cloud/migrate">migrate</a>' in page


def test_a_page_holds_no_secret(signed_in, customer, testbed):
    acme = customer(keys=1, keystores=("first",))
    acme.admin.put_monitor(acme.name, "first", {"webhook": "https://hooks.example.com/CANARY-hook"})
    key = next(iter(acme.keys.values()))
    declared = acme.declaration("first")
    for path in PAGES:
        text = signed_in.get(f"/console/organizations/{acme.name}{path}").text
        for secret in (PASSWORD, "CANARY-hook", key.hex(), declared["certificate"][:40], "PRIVATE KEY"):
            assert secret not in text


def test_a_suspended_organization_says_so_on_every_page(desk, customer):
    acme = customer(keys=3, keystores=("first",))
    client, folder = acme.testbed.vaults["a"].client(), f"archive-keys/{acme.name}/checkpoints"
    found = wait_until(lambda: client.list(folder), "the checkpoint")
    latest = client.read(f"{folder}/{max(found['data']['keys'])}")["data"]
    client.write_data(f"{folder}/000000000099", data={**latest, "epoch": 99, "nonce": "another"})
    wait_until(lambda: acme.admin.organization(acme.name)["suspended"], "the health check", 90)
    one = desk()
    for path in ("", "/history"):
        one.open(f"/console/organizations/{acme.name}{path}")
        expect(one.page.get_by_role("alert")).to_contain_text("until an administrator recovers the organization")
    # The way out is here, too.
    page = one.page
    page.get_by_role("link", name="recovers the organization").click()
    page.get_by_role("button", name="See what would be done").click()
    expect(page.get_by_role("table", name="What the keystores remember")).to_contain_text("first")
    expect(page.get_by_text("Becomes active", exact=True)).to_be_visible()
    page.get_by_role("button", name="Recover as shown").click()
    expect(page.locator(".saved")).to_contain_text("The organization was recovered")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert acme.actions[-1] == "Organization recovered"
    assert acme.released(next(iter(acme.keys))) == next(iter(acme.keys.values()))


def test_a_keystore_that_cannot_be_read_is_left_out_of_a_recovery_by_a_person_alone(desk, customer, testbed):
    acme = customer(keys=2)
    acme.migrate("second")
    one = desk()
    page = one.page
    with testbed.servers["a"].sealed_for_a_while():
        one.open(f"/console/organizations/{acme.name}/recover")
        page.get_by_role("button", name="See what would be done").click()
        expect(page.get_by_text("one of them may hold the keys")).to_be_visible()
        expect(page.get_by_role("button", name="Recover as shown")).to_have_count(0)
        page.get_by_label("first is gone for good").check()
        page.get_by_role("button", name="Look again").click()
        expect(page.get_by_role("button", name="Recover as shown")).to_be_visible()
    # What was confirmed is not so any more: the first keystore is read again, but was left out.

    def decided():
        return max(side["epoch"] or 0 for side in acme.admin.plan_recovery(acme.name)["sides"])

    before = decided()
    acme.enrol(1)
    # Its checkpoint comes a moment later, and is another plan again.
    wait_until(lambda: decided() > before, "the checkpoint", 60)
    page.get_by_role("button", name="Recover as shown").click()
    expect(page.get_by_role("alert")).to_contain_text("has changed since it was confirmed")
    page.get_by_role("button", name="See what would be done").click()
    page.get_by_role("button", name="Recover as shown").click()
    expect(page.locator(".saved")).to_contain_text("The organization was recovered")
    assert acme.active == "second"


def test_an_organization_is_created_by_the_provider_alone(desk, customer, testbed, admin):
    name = f"made-{secrets.token_hex(4)}"
    one = desk()
    one.open("/console")
    page = one.page
    page.get_by_role("link", name="Create Organization").click()
    page.get_by_label("Name").fill("Not A Name")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("KS031")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="There is no active keystore yet")).to_be_visible()
    assert admin.organization(name)["environment"] == "cloud"
    one.open("/console/create")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Environment").select_option("federal")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("is in the cloud environment")
    other = desk(testbed.service.make_token("jane", "customer-cloud-admin"))
    other.open("/console")
    expect(other.page.get_by_role("heading", name="Organizations")).to_be_visible()
    expect(other.page.get_by_role("link", name="Create Organization")).to_have_count(0)
    other.open("/console/create")
    expect(other.page.get_by_role("button", name="Create")).to_have_count(0)


def test_keys_are_verified_and_those_that_are_missing_named(desk, customer, testbed):
    acme = customer(keys=3, keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    one.action("Verify Keys")
    page = one.page
    page.get_by_role("button", name="Verify now").click()
    expect(page.get_by_text("All keys are sound")).to_be_visible()
    lost = min(acme.keys)
    Tenant(testbed.vaults["a"], acme.tenancy("first"), 1).remove(key_name(lost, 1))
    page.get_by_role("button", name="Verify again").click()
    expect(page.get_by_text("1 key is missing")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text=lost)).to_be_visible()
    one.open(f"/console/organizations/{acme.name}/verify")
    expect(page.get_by_text("1 missing, 0 damaged")).to_be_visible()
    with testbed.servers["a"].sealed_for_a_while():
        page.get_by_role("button", name="Verify now").click()
        expect(page.get_by_role("alert")).to_contain_text("sealed")


def test_a_connection_is_tested_now(desk, customer, testbed):
    acme = customer(keystores=("first",))
    one = desk()
    one.open(f"/console/organizations/{acme.name}{FIRST}")
    page = one.page
    # Here a minute is two seconds: the health check may be under way just then.
    tested = re.compile("was tested now|A test of this keystore is under way")
    page.get_by_role("button", name="Test now").click()
    expect(page.locator(".saved")).to_contain_text(tested)
    with testbed.servers["a"].sealed_for_a_while():
        page.get_by_role("button", name="Test now").click()
        expect(page.locator(".saved")).to_contain_text(tested)
        expect(page.get_by_text("it needs 3 of 5 unseal shares").first).to_be_visible()
    one.open(f"/console/organizations/{acme.name}{FIRST}/accept-cluster")
    page.get_by_role("button", name="Accept Cluster").click()
    expect(page.locator(".saved")).to_contain_text("The cluster was proved")
