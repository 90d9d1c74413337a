// `skep ctl` against a machine that runs as users run it: every command, and what is refused.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { multibootKernel, out } from "../api/guest.ts";

const skep = fileURLToPath(new URL("../../bin/skep", import.meta.url));
const limit = { timeout: 120_000 };
/** An IDT of no entries; vector 41H for LINT0; mov ecx, 0x12345678; mov [0x200000], ecx; a byte to COM1; then counts in EBX for ever. */
const NO_IDT = [0x31, 0xc0, 0x50, 0x50, 0x0f, 0x01, 0x1c, 0x24];
const STORE = [0xb9, 0x78, 0x56, 0x34, 0x12, 0x89, 0x0d, 0x00, 0x00, 0x20, 0x00];
const LINT0 = [0xc7, 0x05, 0x50, 0x03, 0xe0, 0xfe, 0x41, 0, 0, 0];
const COUNT = [...NO_IDT, ...LINT0, ...STORE, ...out(0x3f8, 0x21), 0x43, 0xeb, 0xfd];

let folder = "";
let machine: ChildProcess;
let ended: Promise<number | null>;

interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(args: readonly string[]): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(skep, args, { env: { ...process.env, SKEP_RUN: folder }, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}

const ctl = (...args: string[]): Promise<Result> => run(["ctl", "counter", ...args]);

async function good(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await ctl(...args);
  assert.equal(status, 0, stderr);
  return stdout;
}

async function json(...args: string[]): Promise<unknown> {
  return JSON.parse(await good(...args, "--json"));
}

async function refused(args: readonly string[], line: RegExp): Promise<void> {
  const { status, stdout, stderr } = await run(["ctl", ...args]);
  assert.equal(status, 4, `${args.join(" ")}: ${stdout}`);
  assert.match(stderr, line);
  assert.equal(stderr.trimEnd().split("\n").length, 1);
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "skep-ctl-"));
  const kernel = join(folder, "count");
  await writeFile(kernel, multibootKernel(COUNT));
  machine = spawn(skep, ["run", "--name", "counter", "--kernel", kernel, "--memory", "16M"], {
    env: { ...process.env, SKEP_RUN: folder },
    stdio: ["pipe", "pipe", "pipe"],
  });
  ended = new Promise((resolve) => machine.on("close", resolve));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  machine.stdout?.on("data", (data: Buffer) => {
    if (data.includes("!")) resolve();
  });
  machine.stderr?.on("data", (data: Buffer) => reject(new Error(String(data))));
  await promise;
});
after(async () => {
  machine.kill("SIGKILL");
  await rm(folder, { recursive: true, force: true });
});

interface Status {
  engine: string;
  compiler: string;
  threads: string;
  state: string;
  memoryBytes: number;
  timeNs: number;
  vcpus: { cpu: number; activity: string; instructions: number }[];
}

test("the socket is its owner's alone, and lists the machine", limit, async () => {
  assert.equal((await stat(join(folder, "counter.sock"))).mode & 0o777, 0o600);
  assert.equal((await stat(folder)).mode & 0o777, 0o700);
  assert.deepEqual(await run(["ctl", "list"]), { status: 0, stdout: "counter\n", stderr: "" });
});

test("status, pause, registers, resume", limit, async () => {
  assert.match(
    await good("status"),
    /^running, \d+\.\d{3} s of guest time, 16 MiB of memory\nengine translate, compiler on a thread of its own\nthreads one, of vCPUs 1\ncpu x86-64-v2, sockets 1 cores 1 threads 1\non halt end, clock freeze\nvcpu0 apic 0 running /,
  );
  const before = (await json("status")) as Status;
  assert.deepEqual([before.engine, before.compiler, before.threads], ["translate", "thread", "one"]);
  assert.equal(before.state, "running");
  assert.equal(before.memoryBytes, 16 * 2 ** 20);
  assert.equal(before.vcpus.length, 1);
  assert.equal(before.vcpus[0].activity, "running");
  await refused(["counter", "set-regs", "rbx=0"], /registers can be set while the machine is paused/);

  await good("pause");
  const paused = (await json("status")) as Status;
  assert.equal(paused.state, "paused");
  const first = (await json("regs")) as { [name: string]: string };
  assert.deepEqual(await json("regs"), first);
  assert.deepEqual(await json("status"), paused);
  assert.equal(first.rcx, "0000000012345678");
  assert.equal(Number.parseInt(first.cr0, 16) & 1, 1);
  assert.equal(first.xmm15.length, 32);
  assert.equal(await good("regs", "rcx", "rip"), `rcx ${first.rcx}\nrip ${first.rip}\n`);

  await refused(["counter", "set-regs", "rbx=0", "nonsense=1"], /there is no register "nonsense"/);
  await refused(["counter", "set-regs", "rbx=10000000000000000"], /does not fit into the 64 bits of rbx/);
  assert.deepEqual(await json("regs"), first);
  await refused(
    ["counter", "set-regs", "rbx=0", "cr0=80000010"],
    /no processor is in such a state: CR0.PG needs CR0.PE/,
  );
  await refused(["counter", "set-regs", "rbx=0", "efer=500"], /EFER.LMA is EFER.LME and CR0.PG/);
  await good("set-regs", "rbx=fffffff0", "rflags=0x46", "xmm3=0123456789abcdef0011223344556677", "cr2=dead");
  const set = (await json("regs")) as { [name: string]: string };
  const { rbx, rflags, xmm3, cr2 } = set;
  assert.deepEqual(
    { rbx, rflags, xmm3, cr2 },
    {
      rbx: "00000000fffffff0",
      rflags: "00000046",
      xmm3: "0123456789abcdef0011223344556677",
      cr2: "000000000000dead",
    },
  );
  assert.deepEqual(
    { ...set, rbx: "", rflags: "", xmm3: "", cr2: "" },
    { ...first, rbx: "", rflags: "", xmm3: "", cr2: "" },
  );

  await good("resume");
  // EBX went on from what was set: the upper half of RBX is zero in 32-bit code, and xmm3 is nobody's.
  await good("pause");
  const later = (await json("regs")) as { [name: string]: string };
  assert.notEqual(later.rbx, "00000000fffffff0");
  assert.equal(later.xmm3, set.xmm3);
  assert.ok(((await json("status")) as Status).vcpus[0].instructions > paused.vcpus[0].instructions);
  await good("resume");
});

test("guest memory", limit, async () => {
  assert.match(await good("read-memory", "0x200000", "4"), /^000200000 {2}78 56 34 12 +xV4\.\n$/);
  await good("write-memory", "0x300ffe", "00112233", "44");
  assert.deepEqual(await json("read-memory", "0x300ffd", "7"), { gpa: 0x300ffd, bytes: "00001122334400" });
  const file = join(folder, "piece");
  const bytes = Buffer.alloc(40_000, "skep");
  await writeFile(file, bytes);
  await good("write-memory", "0x400001", "--file", file);
  const copy = join(folder, "copy");
  await good("read-memory", "0x400001", "40000", "--file", copy);
  assert.ok((await readFile(copy)).equals(bytes));
  await refused(["counter", "read-memory", "0x1000000", "1"], /not all of the 1 bytes at 0x1000000 are RAM/);
  await refused(["counter", "write-memory", "0x1000", "0g"], /no bytes in hexadecimal/);
  await refused(["counter", "write-memory", "0x1000"], /either bytes in hexadecimal or --file/);
});

test("interrupt controllers and counters", limit, async () => {
  const [apic] = (await json("apic")) as { mode: string; base: string; registers: { [name: string]: string } }[];
  assert.equal(apic.mode, "xapic");
  assert.equal(apic.base, "00000000fee00900");
  assert.equal(apic.registers.SVR, "000001ff");
  assert.equal(apic.registers.LVT_LINT1, "00000400");
  assert.match(await good("apic", "--cpu", "0"), /^vcpu0 xapic base 00000000fee00900\n/);
  // What comes by the pin stays requested: the guest's interrupts are off.
  assert.equal(apic.registers.IRR2, "00000000");
  await good("lint", "0", "--cpu", "0");
  const [asked] = (await json("apic")) as (typeof apic)[];
  assert.equal(asked.registers.IRR2, "00000002");
  const pins = (await json("ioapic")) as { pin: number; masked: boolean }[];
  assert.equal(pins.length, 24);
  assert.ok(pins.every(({ masked }) => masked));
  await good("irq", "5", "assert");
  assert.match(await good("ioapic"), /^pin {2}5 .* asserted by 1$/m);
  await good("irq", "5", "deassert");
  assert.doesNotMatch(await good("ioapic"), /asserted/);
  await refused(["counter", "irq", "2", "pulse"], /there is no ISA interrupt line 2/);
  await refused(["counter", "irq", "5", "hold"], /told to assert, deassert, pulse/);
  assert.match(await good("stats"), /^timeNs \d+$/m);
});

test("bad requests are one line and status 4, and the machine goes on", limit, async () => {
  await refused(["nobody", "status"], /there is no running machine "nobody" \(known are: counter\)/);
  await refused(["counter", "frobnicate"], /there is no command "frobnicate"/);
  await refused(["counter", "regs", "--cpu", "7"], /there is no vCPU 7/);
  await refused(["counter", "lint", "2"], /pins are 0 and 1/);
  await refused(["counter", "status", "too", "much"], /it is: skep ctl counter status/);
  await refused(["../counter", "status"], /cannot be a machine's name/);
  const second = await run(["run", "--name", "counter", "--kernel", join(folder, "count")]);
  assert.equal(second.status, 4);
  assert.match(second.stderr, /a machine named "counter" is running/);

  // What is no request at all, or one of another release.
  const requests = [
    "nonsense",
    '{"version":1,"body":{"command":"toString"}}',
    '{"version":1,"body":{"command":"control","request":{"what":"x"}}}',
    '{"version":1}',
    "null",
    '{"command":"pause"}',
    '{"version":2,"body":{"command":"pause"}}',
  ];
  const answers = await new Promise<string>((resolve, reject) => {
    const socket = createConnection(join(folder, "counter.sock"));
    let text = "";
    socket.setEncoding("utf8").on("data", (data: string) => {
      text += data;
      if (text.split("\n").length > requests.length) socket.end();
    });
    socket.on("close", () => resolve(text)).on("error", reject);
    socket.write(`${requests.join("\n")}\n`);
  });
  const lines = answers.trimEnd().split("\n");
  assert.equal(lines.length, requests.length);
  assert.match(lines[6], /control protocol has version 1, the request is of 2: use the skep that started it/);
  for (const line of lines) assert.equal((JSON.parse(line) as { code: string }).code, "config", line);
  assert.equal(((await json("status")) as Status).state, "running");
});

test("an NMI without a handler ends this guest; its name is free again", limit, async () => {
  await good("nmi");
  assert.equal(await ended, 3);
  assert.deepEqual(await run(["ctl", "list"]), { status: 0, stdout: "", stderr: "" });
});
