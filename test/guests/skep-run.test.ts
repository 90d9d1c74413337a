// The kernels of guests/ through the command: the whole machine, its loader, serial port, local APIC and debug exit port.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { assemble, GUEST_NAMES, SKIP } from "./assemble.ts";
import { failures, WHOLE_MACHINE } from "./machine.ts";

const SKEP = join(import.meta.dirname, "../../bin/skep");
const OPTIONS = ["--cpu", "max", "--memory", "32M", "--debug-exit"];
const TIMEOUT = 60000;

function runs(title: string, name: string, options: readonly string[]): void {
  test(title, { timeout: TIMEOUT, skip: SKIP }, () => {
    const run = spawnSync(SKEP, ["run", "--kernel", assemble(name), ...OPTIONS, ...options], {
      input: "",
      timeout: TIMEOUT,
      encoding: "utf8",
    });
    assert.deepEqual(failures({ output: run.stdout, status: run.status ?? -1, retired: 0 }, name), [], run.stderr);
  });
}

for (const name of GUEST_NAMES) runs(name, name, []);
// What comes from the chip set comes from another thread there.
for (const name of WHOLE_MACHINE) runs(`${name}, two vCPUs with a thread each`, name, ["--cpus", "2"]);
