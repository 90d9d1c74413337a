// The command from outside: exit statuses, where the serial port goes, and bad input: one clear line, status 4, files unchanged.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  cachedGuest,
  ECHO,
  HALT,
  multibootKernel,
  out,
  POWER_OFF,
  print,
  REBOOT,
  SPIN,
  TRIPLE_FAULT,
} from "../api/guest.ts";
import { runSkep } from "./run.ts";

const skep = fileURLToPath(new URL("../../bin/skep", import.meta.url));
const limit = { timeout: 120_000 };
let folder = "";

async function kernel(name: string, code: readonly number[]): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, multibootKernel(code));
  return path;
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "skep-cli-"));
});
after(() => rm(folder, { recursive: true, force: true }));

test("exit statuses", limit, async () => {
  const cases: [name: string, code: readonly number[], status: number, args: readonly string[]][] = [
    ["reboot", REBOOT, 0, []],
    ["poweroff", POWER_OFF, 1, []],
    ["halt", HALT, 2, []],
    ["triple", TRIPLE_FAULT, 3, []],
    ["debug", out(0xf4, 0x10), 0x21, ["--debug-exit"]],
    ["debug501", out(0x501, 3), 7, ["--debug-exit=0x501"]],
  ];
  for (const [name, code, status, args] of cases) {
    const run = await runSkep(["run", "--kernel", await kernel(name, code), ...args]);
    assert.deepEqual(run, { status, stdout: "", stderr: "" }, name);
  }
});

test("the serial port: standard output, nowhere, a file", limit, async () => {
  const file = await kernel("hello", [...print("hello\r\n"), ...POWER_OFF]);
  assert.equal((await runSkep(["run", "--kernel", file])).stdout, "hello\r\n");
  assert.equal((await runSkep(["run", "--kernel", file, "--serial", "null"])).stdout, "");
  const log = join(folder, "serial.log");
  const run = await runSkep(["run", "--kernel", file, "--serial", `file:${log}`]);
  assert.deepEqual(run, { status: 1, stdout: "", stderr: "" });
  assert.equal(await readFile(log, "utf8"), "hello\r\n");
});

test("standard input goes to the guest, and need not end for the run to end", limit, async () => {
  const file = await kernel("echo", [...ECHO, ...POWER_OFF]);
  const input = "from standard input \x01x q";
  assert.equal((await runSkep(["run", "--kernel", file], { input })).stdout, input);
  const run = await runSkep(["run", "--kernel", file], { input, keepInputOpen: true });
  assert.deepEqual([run.stdout, run.status], [input, 1]);
});

test("counters and traces go to standard error", limit, async () => {
  const file = await kernel("stats", [...print("x"), ...POWER_OFF]);
  const { stdout, stderr } = await runSkep(["run", "--kernel", file, "--stats", "--trace", "ports"]);
  assert.equal(stdout, "x");
  assert.match(stderr, /^ports: out 0x3f8 1 <- 0x78$/m);
  assert.match(stderr, /^vcpus\[0\]\.instructions \d+$/m);
  assert.match(stderr, /^io\.portWrites 2$/m);
});

test("MSRs that there are not fault, or are ignored", limit, async () => {
  // An IDT of no entries; mov ecx, 0x12345; rdmsr; or eax, edx; jnz to itself; wrmsr
  const access = [0xb9, 0x45, 0x23, 0x01, 0x00, 0x0f, 0x32, 0x09, 0xd0, 0x75, 0xfe, 0x0f, 0x30];
  const file = await kernel("msr", [...TRIPLE_FAULT.slice(0, -2), ...access, ...POWER_OFF]);
  assert.equal((await runSkep(["run", "--kernel", file])).status, 3);
  const run = await runSkep(["run", "--kernel", file, "--unknown-msrs", "ignore", "--stats"]);
  assert.equal(run.status, 1);
  assert.match(run.stderr, /unknown MSR ignored 0x12345/);
});

test("a signal ends the run", limit, async () => {
  const file = await kernel("spin", [...print("up"), ...SPIN]);
  const child = spawn(skep, ["run", "--kernel", file], { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  child.kill("SIGTERM");
  const status = await new Promise((resolve) => child.on("close", resolve));
  assert.equal(status, 143);
});

test("a reader that goes away ends the run", limit, async () => {
  // Writes for ever.
  const file = await kernel("flood", [...print("x"), 0xee, 0xeb, 0xfd]);
  const child = spawn("sh", ["-c", `"${skep}" run --kernel "${file}" | head -c 100000 | wc -c`]);
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  await new Promise((resolve) => child.on("close", resolve));
  assert.equal(text.trim(), "100000");
});

test("help and version", limit, async () => {
  const help = await runSkep(["--help"]);
  assert.equal(help.status, 0);
  assert.match(help.stdout, /skep run --kernel FILE/);
  assert.match((await runSkep(["run", "--help"])).stdout, /--disk FILE\[,readonly\]/);
  assert.match((await runSkep(["start", "--help"])).stdout, /--memory SIZE/);
  assert.match((await runSkep(["--version"])).stdout, /^skep \d+\.\d+\.\d+\n$/);
  assert.equal((await runSkep([])).status, 4);
});

const sum = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

async function snapshotOfFolder(): Promise<string> {
  const lines: string[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    const info = await stat(path);
    if (info.isFile()) lines.push(`${name} ${info.mtimeMs} ${sum(await readFile(path))}`);
  }
  return lines.join("\n");
}

test("bad input: one clear line, status 4, files unchanged", limit, async () => {
  const file = await kernel("good", POWER_OFF);
  const at = (name: string): string => join(folder, name);
  await writeFile(at("text"), "this is no kernel\n".repeat(100));
  await writeFile(at("empty"), "");
  await writeFile(at("initrd"), new Uint8Array(20 * 2 ** 20));
  await writeFile(at("odd.img"), new Uint8Array(1000));
  await writeFile(at("disk.img"), new Uint8Array(4096).fill(7));
  await writeFile(at("locked.img"), new Uint8Array(4096));
  await chmod(at("locked.img"), 0o444);
  const cases: [args: readonly string[], message: RegExp][] = [
    [[], /a kernel is needed/],
    [["--kernel", at("missing")], /cannot read kernel .*missing: there is no such file/],
    [["--kernel", folder], /cannot read kernel .*: it is a directory/],
    [["--kernel", at("text")], /no kernel that can be booted/],
    [["--kernel", at("empty")], /empty/],
    [["--kernel", file, "--initrd", at("missing")], /cannot read initramfs .*: there is no such file/],
    [["--kernel", file, "--initrd", at("initrd"), "--memory", "16M"], /initramfs .* of 20 MiB does not fit/],
    [["--kernel", file, "--module", `${at("missing")} a b`], /cannot read module/],
    [["--kernel", file, "--memory", "64G"], /too large: a machine has at most/],
    [["--kernel", file, "--memory", "1K"], /too small/],
    [["--kernel", file, "--memory", "lots"], /is no size/],
    [["--kernel", file, "--cpus", "0"], /is no number of CPUs/],
    [["--kernel", file, "--cpus", "two"], /"two" is no number of CPUs/],
    [["--kernel", file, "--cpus", "1000"], /1000 CPUs are more than the 512/],
    [["--kernel", file, "--cpu", "x86-64-v2,+teleport"], /unknown CPU flag "teleport"/],
    [["--kernel", file, "--cpu", "z80"], /unknown CPU model "z80"/],
    [["--kernel", file, "--engine", "jit"], /unknown engine "jit"/],
    [
      ["--kernel", file, "--without", "halt-polling,sleep"],
      /there is no assist "sleep": known are posted-accesses, halt/,
    ],
    [["--kernel", file, "--on-halt", "stop"], /unknown end "stop" of a halt: known are end, wait/],
    [["--kernel", file, "--clock", "run"], /unknown clock "run": known are freeze, catch-up/],
    [["--kernel", file, "--clock", "catch-up", "--deterministic"], /deterministic machine goes by instructions/],
    [["--kernel", file, "--unknown-msrs", "guess"], /unknown way "guess" with unknown MSRs: known are fault, ignore/],
    [["--kernel", file, "--trace", "all"], /there is no trace of "all"/],
    [["--kernel", file, "--disk", at("missing.img")], /cannot open disk image .*missing\.img/],
    [["--kernel", file, "--disk", at("odd.img")], /no multiple of 512/],
    [["--kernel", file, "--disk", at("empty")], /it is empty/],
    [["--kernel", file, "--disk", folder], /directory/],
    [["--kernel", file, "--disk", at("disk.img"), "--disk", at("missing.img")], /missing\.img/],
    [
      ["--kernel", file, "--serial", "file:/nonexistent/log"],
      /cannot write the serial output to .*: there is no such file/,
    ],
    [["--kernel", file, "--debug-exit=99999"], /no I\/O port/],
    [["--kernel", file, "--no-such-option"], /unknown option --no-such-option/],
    [["--kernel", at("missing"), "--serial", `file:${at("never.log")}`], /cannot read kernel/],
  ];
  // Root may write anything.
  if (process.getuid?.() !== 0) {
    cases.push([
      ["--kernel", file, "--disk", at("locked.img")],
      /cannot open disk image .* for writing: permission denied/,
    ]);
  }
  const present = await snapshotOfFolder();
  for (const [args, message] of cases) {
    const { status, stdout, stderr } = await runSkep(["run", ...args]);
    const what = `skep run ${args.join(" ")}: ${stderr}`;
    assert.equal(status, 4, what);
    assert.equal(stdout, "", what);
    assert.match(stderr, /^skep: [^\n]+\n$/, what);
    assert.match(stderr, message, what);
  }
  assert.equal(await snapshotOfFolder(), present);
  const unknown = await runSkep(["fly"]);
  assert.equal(unknown.status, 4);
  assert.match(unknown.stderr, /^skep: there is no command "fly"; see skep --help\n$/);
});

test("an image on a read-only file system can't be written; read-only it can be used", limit, async (t) => {
  const image = "/proc/version";
  const writable = await runSkep(["run", "--kernel", await kernel("ro", POWER_OFF), "--disk", image]);
  if (writable.status !== 4) t.skip("this host lets it be written");
  else assert.match(writable.stderr, /^skep: cannot (open|use) disk image [^\n]+\n$/);
  const disk = join(folder, "readonly.img");
  await writeFile(disk, new Uint8Array(8192));
  await chmod(disk, 0o444);
  const run = await runSkep(["run", "--kernel", await kernel("ro2", POWER_OFF), "--disk", `${disk},readonly`]);
  assert.deepEqual([run.status, run.stderr], [1, ""]);
});

test("a kernel that is cut short is told as such", limit, async (t) => {
  const guest = await cachedGuest();
  if (guest === undefined) {
    t.skip("Debian's guest is not in the cache");
    return;
  }
  const whole = await readFile(guest.kernel);
  const path = join(folder, "short");
  for (const length of [0x200, 0x1ff, 0x260, 0x1000, 0x5000, whole.length >> 1, whole.length - 500_000]) {
    await writeFile(path, whole.subarray(0, length));
    const { status, stderr } = await runSkep(["run", "--kernel", path]);
    assert.equal(status, 4, `${length} bytes: ${stderr}`);
    assert.match(stderr, /^skep: short: [^\n]+\n$/);
  }
});

test("in a terminal: raw mode, Ctrl-a x, and the terminal as it was", limit, async (t) => {
  if (spawnSync("script", ["--version"]).status !== 0) {
    t.skip("needs script(1)");
    return;
  }
  const file = await kernel("terminal", [...print("ready\r\n"), ...ECHO, ...POWER_OFF]);
  // stty tells the mode before and after on standard output, which is the terminal that script(1) makes.
  const inner = `stty -a | grep -o -- '-\\?icanon'; "${skep}" run --kernel "${file}"; echo "status $?"; stty -a | grep -o -- '-\\?icanon'`;
  const child = spawn("script", ["-q", "-e", "-c", inner, "/dev/null"], { stdio: ["pipe", "pipe", "inherit"] });
  let text = "";
  // An interrupt and an end-of-file are the guest's in raw mode.
  const talk: [wait: string, type: string][] = [
    ["ready", "one\x03\x04two\x01a"],
    ["two\x01", "\x01x"],
  ];
  child.stdout.setEncoding("latin1").on("data", (chunk: string) => {
    text += chunk;
    if (talk.length > 0 && text.includes(talk[0][0])) child.stdin.write(talk.shift()?.[1] ?? "");
  });
  await new Promise((resolve) => child.on("close", resolve));
  const seen = JSON.stringify(text);
  assert.ok(text.startsWith("icanon\r\nready\r"), seen);
  assert.ok(text.includes("one\x03\x04two\x01"), seen);
  assert.match(text, /skep: stopped\r\nstatus 4\r\nicanon\r\n$/, seen);
});
