// The kernels of guests/ under QEMU as a second opinion on what they expect, where QEMU is installed.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { assemble, GUEST_NAMES, SKIP } from "./assemble.ts";
import { DIFFERENCES, UNSUITED } from "./qemu-differences.ts";

const QEMU = "qemu-system-x86_64";
const OPTIONS =
  "-device isa-debug-exit,iobase=0xf4,iosize=4 -display none -serial stdio -monitor none -no-reboot -m 64";
const CPU = "max,vendor=GenuineIntel";
const TIMEOUT = 20000;

const installed = spawnSync(QEMU, ["--version"]).error === undefined;
const skip = SKIP || (installed ? false : "QEMU is not installed");

/** Name of the check in a line of failure. */
function failed(line: string): string | undefined {
  return /^FAIL (.*): got /.exec(line)?.[1] ?? /^FAIL (unexpected exception)/.exec(line)?.[1];
}

for (const name of GUEST_NAMES) {
  test(name, { skip: skip || (UNSUITED.has(name) ? "QEMU does not come to its end" : false) }, () => {
    const kernel = assemble(name);
    const run = spawnSync(QEMU, ["-kernel", kernel, "-cpu", CPU, ...OPTIONS.split(" ")], {
      input: "",
      timeout: TIMEOUT,
      encoding: "utf8",
    });
    const lines = run.stdout.split("\n");
    const known = new Set(DIFFERENCES[name]);
    const unknown = lines.map(failed).filter((check) => check !== undefined && !known.has(check));
    assert.deepEqual(unknown, []);
    assert.ok(lines.some((line) => line.startsWith("ok ")));
  });
}
