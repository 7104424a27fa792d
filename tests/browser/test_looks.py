"""How the console looks and reads: WCAG AA by axe, keyboard, both colour schemes, and no sideways scrolling on a phone.

With SCREENSHOTS=1 the pictures of docs/ are made anew: those that are there, so that `touch` adds one.
"""

import itertools
import os
import re
import secrets
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from keystore_harness import wait_until
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, WIDE
from tests.browser.test_console import PAGES
from tests.conftest import PASSWORD, WHOLE

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SIZES = {"1280": WIDE, "390": PHONE}
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


def judge(page, name):
    results = Axe().run(page, options=RULES)
    assert results.violations_count == 0, f"{name}: {results.generate_report()}"
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{name} is {wide} pixels too wide"


def picture(page, name, *, full_page=False):
    path = PICTURES / f"{name}.png"
    if os.environ.get("SCREENSHOTS") and path.exists():
        page.screenshot(path=path, full_page=full_page)


@pytest.mark.parametrize(
    ("size", "scheme"),
    list(itertools.product(SIZES, ("light", "dark"))) if WHOLE else [("1280", "light"), ("390", "dark")],
)
def test_every_page_is_accessible_and_fits(desk, customer, testbed, pfx, size, scheme):
    acme = customer(keys=3)
    acme.admin.put_monitor(acme.name, "first", {"recipients": ["security@example.com"]})
    token = testbed.service.make_token("jane", "customer-cloud-admin", acme.name)
    one = desk(token, viewport=SIZES[size], color_scheme=scheme, bypass_csp=True)
    page, root = one.page, f"/console/organizations/{acme.name}"

    def look(name, path=None):
        if path is not None:
            one.open(path)
        judge(page, f"{name} {size} {scheme}")
        picture(page, f"{name}-{size}{'-dark' if scheme == 'dark' else ''}", full_page=True)

    one.open_keystore(acme.name)
    for text in ("Online", re.compile(r"^valid until [A-Z][a-z]{2} \d+, \d{4}$")):
        expect(page.get_by_text(text).first).to_be_visible()
    page.wait_for_timeout(3000)
    look("keystore", root)
    page.get_by_text("Actions", exact=True).click()
    look("actions")
    look("one-keystore", f"{root}/keystores/first")
    look("register", f"{root}/register")
    look("delete", f"{root}/keystores/second/delete")
    look_at_an_edit(page, root, look, pfx(acme.name))
    look("migrate", f"{root}/migrate")
    page.get_by_label("E-mail address").fill("none")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Migrate 3 archive keys?")).to_be_visible()
    look("confirm")
    look("alerts", f"{root}/keystores/first/alerts")
    page.get_by_role("button", name="Send a Test").click()
    expect(page.get_by_role("table", name="Answers to the latest test")).to_be_visible()
    look("alerts-tested")
    look("history", f"{root}/history")
    look_at_an_outage(one, testbed, root, look)
    other = desk(viewport=SIZES[size], color_scheme=scheme, bypass_csp=True, sign_in=False)
    page = other.page
    other.open("/console/sign-in")
    look("sign-in")
    other.sign_in()
    expect(page.get_by_role("heading", name="Organizations")).to_be_visible()
    look("few-organizations")
    other.open("/console/organizations/nobody")
    look("error")


@pytest.mark.parametrize(
    ("size", "scheme"),
    list(itertools.product(SIZES, ("light", "dark"))) if WHOLE else [("390", "light")],
)
def test_pages_of_what_is_rare_are_accessible_and_fit(desk, customer, testbed, admin, size, scheme):
    """Nothing registered, federal, legacy, the provider's, a migration that has ended, and what is suspended."""
    one = desk(viewport=SIZES[size], color_scheme=scheme, bypass_csp=True)

    def look(name, path):
        one.open(path)
        expect(one.page.get_by_role("heading").first).to_be_visible()
        judge(one.page, f"{name} {size} {scheme}")

    name = f"rare-{secrets.token_hex(3)}"
    for environment in ("cloud", "federal"):
        admin.put_organization(f"{name}-{environment}", environment)
        look(f"empty, {environment}", f"/console/organizations/{name}-{environment}")
    admin.put_keystore(f"{name}-cloud", "old", {"kind": "legacy"})
    for path in ("", "/keystores/old", "/migrate"):
        look(f"legacy {path}", f"/console/organizations/{name}-cloud{path}")
    provided = customer(keystores=())
    provided.register("first", kind="provider")
    for path in ("", "/keystores/first"):
        look(f"provider {path}", f"/console/organizations/{provided.name}{path}")
    acme = customer(keys=2)
    acme.migrate("second")
    root = f"/console/organizations/{acme.name}"
    for path in ("", "/verify", "/recover", "/keystores/second/accept-cluster", "/keystores/second"):
        look(f"migrated {path}", f"{root}{path}")
    one.open(f"{root}/verify")
    one.page.get_by_role("button", name="Verify now").click()
    expect(one.page.get_by_text("All keys are sound")).to_be_visible()
    judge(one.page, f"verified {size} {scheme}")
    look("create", "/console/create")
    one.open(f"{root}/recover")
    one.page.get_by_role("button", name="See what would be done").click()
    expect(one.page.get_by_role("button", name="Recover as shown")).to_be_visible()
    judge(one.page, f"plan of a recovery {size} {scheme}")
    suspend(acme, "b")
    for path in ("", "/recover"):
        look(f"suspended {path}", f"{root}{path}")


def suspend(acme, server):
    """Have a keystore remember a decision that the database does not know."""
    client, folder = acme.testbed.vaults[server].client(), f"archive-keys/{acme.name}/checkpoints"
    found = wait_until(lambda: client.list(folder), "the checkpoint")
    latest = client.read(f"{folder}/{max(found['data']['keys'])}")["data"]
    client.write_data(f"{folder}/000000000099", data={**latest, "epoch": 99, "nonce": "another"})
    wait_until(lambda: acme.admin.organization(acme.name)["suspended"], "the health check", 90)


TOWNS = ("aberdeen", "bergen", "cadiz", "delft", "esbjerg", "faro", "ghent", "halle", "izmir", "jena", "kiel", "lund")
TRADES = ("bank", "clinic", "college", "energy", "port")


@pytest.fixture
def many(admin, customer):
    """More organizations than a page shows, named as customers are; some have a keystore on one server or the other."""
    names = [f"{town}-{trade}" for town in TOWNS for trade in TRADES]
    for number, name in enumerate(names):
        if number % 12 and number > 4:
            admin.put_organization(name)
        else:
            customer(name=name, keystores=(("first", "second")[number % 8 // 4],))
            if number % 5:
                keystore = admin.keystores(name)[0]["name"]
                admin.put_monitor(name, keystore, {"recipients": ["security@example.com"]})
    yield
    for name in names:
        for row in admin.keystores(name):
            admin.delete_keystore(name, row["name"])
        admin.delete_organization(name)


def test_many_organizations_are_accessible_and_fit(desk, testbed, many):
    one = desk(bypass_csp=True)
    with testbed.servers["b"].sealed_for_a_while():
        one.open("/console?problem=offline")
        wait_until(lambda: one.page.reload() and one.page.get_by_text("Offline /").count() >= 2, "health checks", 60)
        for size, viewport in SIZES.items():
            one.page.set_viewport_size(viewport)
            one.open("/console")
            expect(one.page.get_by_role("link", name="Next page")).to_be_visible()
            judge(one.page, f"organizations {size}")
            picture(one.page, f"organizations-{size}")


REACHABLE = """() => {
    const all = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]';
    const shown = [...document.querySelectorAll(all)].filter(e => e.checkVisibility() && !e.disabled);
    // Of radio buttons the arrow keys choose one.
    const wanted = shown.filter(e => e.type !== "radio" || e.checked);
    wanted.forEach((e, number) => e.dataset.stop = number);
    return wanted.map(e => e.outerHTML.slice(0, 100));
}"""
FOCUSED = """() => {
    const e = document.activeElement, style = getComputedStyle(e);
    const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none";
    return [e.dataset.stop ?? null, seen];
}"""


@pytest.mark.timeout(1200)
def test_everything_on_every_page_is_reached_and_seen_by_keyboard(desk, customer, testbed):
    acme = customer(keys=1)
    one = desk(testbed.service.make_token("ops-too", "provider-admin"))
    page = one.page
    for path in ["/console", "/console/create", *(f"/console/organizations/{acme.name}{each}" for each in PAGES)]:
        one.open(path)
        expect(page.get_by_role("heading").first).to_be_visible()
        for menu in page.locator("details:not([open])").all():
            menu.evaluate("menu => menu.open = true")
        wanted = page.evaluate(REACHABLE)
        page.evaluate("() => document.activeElement.blur()")
        reached, unseen = set(), []
        for _ in range(len(wanted) + 5):
            page.keyboard.press("Tab")
            stop, seen = page.evaluate(FOCUSED)
            if stop is not None:
                reached.add(int(stop))
                unseen += [] if seen else [wanted[int(stop)]]
        assert [wanted[stop] for stop in set(range(len(wanted))) - reached] == [], path
        assert unseen == [], path


@pytest.mark.timeout(1200)
def test_every_page_is_whole_without_javascript(desk, customer):
    acme = customer(keys=1)
    one = desk(java_script_enabled=False)
    for path in ["/console", "/console/create", *(f"/console/organizations/{acme.name}{each}" for each in PAGES)]:
        one.open(path)
        expect(one.page.get_by_role("heading").first).to_be_visible()
        for form in one.page.locator("form").all():
            assert form.locator("button").count() > 0, path
        # What a script alone would show, or hide, is not there.
        assert one.page.locator("main").inner_text().count("undefined") == 0, path


def look_at_an_edit(page, root, look, upload):
    look("edit", f"{root}/keystores/first/edit")
    page.get_by_label("URL").fill("https://10.0.0.1:8200")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_be_visible()
    look("edit-refused")
    look("edit-again", f"{root}/keystores/first/edit")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Verified. Nothing would change")).to_be_visible()
    look("edit-unchanged")
    look("edit-once-more", f"{root}/keystores/first/edit")
    page.get_by_label("New client certificate").set_input_files(upload)
    page.get_by_label("Password of the file").fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Verified. Use the new settings?")).to_be_visible()
    look("edit-confirm")


def look_at_an_outage(one, testbed, root, look):
    page = one.page
    with testbed.servers["a"].sealed_for_a_while():
        one.open(root)
        expect(page.get_by_text("Offline / Host unavailable")).to_be_visible()
        page.wait_for_timeout(1500)
        look("offline", root)
        for period in ("day", "month"):
            look(f"keystore-{period}", f"{root}/keystores/first?period={period}")


def test_progress_is_accessible(desk, customer, testbed):
    acme = customer(keys=200)
    # The migration must not be over before a browser on a busy machine has shown it.
    with testbed.servers["b"].rate_limited(20):
        acme.start_and_wait_for("second", 1)
        for size, viewport in SIZES.items():
            one = desk(viewport=viewport, bypass_csp=True)
            one.open_keystore(acme.name)
            expect(one.page.get_by_role("progressbar")).to_be_visible()
            judge(one.page, f"progress {size}")
            picture(one.page, f"progress-{size}", full_page=True)
    acme.finish(acme.admin.migrations(acme.name)[0])


def test_the_page_is_used_by_keyboard_alone(desk, customer):
    acme = customer(keystores=("first",))
    one = desk()
    one.open_keystore(acme.name)
    page = one.page
    expect(page.get_by_text("Online").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Actions", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Edit Keystore")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Edit Keystore")).to_be_hidden()
    # The bars say under themselves what a mouse would be shown.
    page.locator(".bars").focus()
    page.keyboard.press("ArrowLeft")
    # A busy machine may not have tested it in the minute before: then that is what is said.
    expect(page.locator(".bar-detail")).to_contain_text(re.compile(r"^\d+:\d+ [AP]M: (online|no test made)"))
    page.keyboard.press("Home")
    expect(page.locator(".bar-detail")).to_contain_text("no test made")
