// Debian's unmodified kernels, from power-on to power-off: they load their virtio modules, run guests/linux/suite.sh, and leave a disk whose
// bytes the host reads back. The slowest tests there are, and the ones that everything else exists for.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { linuxSuite, readSuiteOutput } from "../../guests/linux/suite.ts";
import { debianGuest, type Flavour } from "../../src/host/node/debian-guest.ts";

const skep = fileURLToPath(new URL("../../bin/skep", import.meta.url));
const command = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const missing = !existsSync(command)
  ? "there is no command yet"
  : ["apt-get", "gcc"].find((tool) => spawnSync(tool, ["--version"]).status !== 0);
const options = missing === undefined ? { timeout: 900_000 } : { skip: `needs ${missing}` };

function runSkep(
  args: readonly string[],
  timeoutMs: number,
): Promise<{ status: number | null; console: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(skep, ["run", ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let console = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      console += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    const deadline = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    child.on("error", reject);
    child.on("close", (status) => {
      clearTimeout(deadline);
      resolve({ status, console, stderr });
    });
  });
}

/** One of so many executions of translated code is held against the interpreter in the checked run; with SKEP_TEST_CHECK=1 every one. */
const CHECKED = process.env.SKEP_TEST_CHECK ?? "200";

const RUNS: readonly (readonly [Flavour, engine: "interpret" | "translate" | "checked"])[] = [
  ["cloud", "interpret"],
  ["cloud", "translate"],
  ["cloud", "checked"],
  ["standard", "interpret"],
  ["standard", "translate"],
];

for (const [flavour, engine] of RUNS) {
  test(`Debian's ${flavour} kernel runs the userspace suite and powers off (${engine})`, options, async () => {
    const folder = await mkdtemp(join(tmpdir(), "skep-system-"));
    try {
      const guest = await debianGuest({ flavour });
      const suite = await linuxSuite(guest);
      const disk = join(folder, "disk.img");
      const initrd = join(folder, "initramfs.cpio");
      await suite.makeDisk(disk);
      await writeFile(initrd, suite.initrd);
      const args = ["--kernel", guest.kernel, "--initrd", initrd, "--append", "console=ttyS0 panic=-1"];
      const how = engine === "checked" ? ["--engine", "translate", `--check-regions=${CHECKED}`] : ["--engine", engine];
      const run = await runSkep([...args, "--memory", "512M", "--disk", disk, ...how, "--stats"], 800_000);
      const tail = `${run.console.slice(-4000)}\n${run.stderr}`;
      const result = readSuiteOutput(run.console);
      assert.deepEqual(result.failed, [], tail);
      assert.ok(result.done, tail);
      for (const name of [
        "forty-children",
        "floating-point",
        "disk-read",
        "read-back",
        "disk-write",
        "hwrng",
        "kernel-log",
      ]) {
        assert.ok(result.passed.includes(name), `${name} was not reported\n${tail}`);
      }
      assert.equal(run.status, 1, `the exit status of a guest that powered off\n${tail}`);
      assert.equal(await suite.checkDisk(disk), undefined);
      if (engine === "checked") assert.match(run.stderr, /engine\.regionChecks [1-9]\d{3}/);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}
