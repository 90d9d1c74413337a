// The kernels of guests/ under QEMU as a second opinion on what they expect, where QEMU is installed.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { test } from "node:test";
import { assemble, GUEST_NAMES, SKIP } from "./assemble.ts";
import { DIFFERENCES, UNSUITED } from "./qemu-differences.ts";

const QEMU = "qemu-system-x86_64";
const OPTIONS = "-device isa-debug-exit,iobase=0xf4,iosize=4 -display none -monitor none -no-reboot -m 64";
const CPU = "max,vendor=GenuineIntel";
const TIMEOUT = 20000;

const installed = spawnSync(QEMU, ["--version"]).error === undefined;
const skip = SKIP || (installed ? false : "QEMU is not installed");

/** Name of the check in a line of failure. */
function failed(line: string): string | undefined {
  return /^FAIL (.*): got /.exec(line)?.[1] ?? /^FAIL (unexpected exception)/.exec(line)?.[1];
}

for (const name of GUEST_NAMES) {
  test(name, { skip: skip || (UNSUITED.has(name) ? "QEMU does not come to its end" : false) }, (t) => {
    const kernel = assemble(name);
    // To a file: QEMU drops characters where a pipe has no room for them, as under load.
    const serial = `${kernel}.${process.pid}.serial`;
    t.after(() => rmSync(serial, { force: true }));
    const options = ["-kernel", kernel, "-cpu", CPU, ...OPTIONS.split(" "), "-serial", `file:${serial}`];
    spawnSync(QEMU, options, { stdio: "ignore", timeout: TIMEOUT });
    const lines = readFileSync(serial, "utf8").split("\n");
    const known = new Set(DIFFERENCES[name]);
    const unknown = lines.map(failed).filter((check) => check !== undefined && !known.has(check));
    assert.deepEqual(unknown, []);
    assert.ok(lines.some((line) => line.startsWith("ok ")));
  });
}
