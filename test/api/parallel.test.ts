// Machines whose vCPUs have a thread each: every way in which they end, and what can be done to them while they run.

import assert from "node:assert/strict";
import { test } from "node:test";
import { startMachineThread } from "../../src/host/node/machine-thread.ts";
import { SkepError, VirtualMachine } from "../../src/index.ts";
import { type FromMachine, MESSAGE } from "../../src/machine/protocol.ts";
import {
  ECHO,
  HALT,
  le32,
  multibootKernel,
  out,
  POWER_OFF,
  print,
  REBOOT,
  SPIN,
  store,
  TRIPLE_FAULT,
} from "./guest.ts";

const limit = { timeout: 120_000 };

function create(code: readonly number[], cpus = 3): Promise<VirtualMachine> {
  return VirtualMachine.create({ kernel: multibootKernel(code), threads: "each", cpus, debugExit: true });
}

async function text(vm: VirtualMachine): Promise<string> {
  let all = "";
  const decoder = new TextDecoder();
  for await (const chunk of vm.serial.readable) all += decoder.decode(chunk, { stream: true });
  return all;
}

async function bytesOf(vm: VirtualMachine): Promise<number[]> {
  const all: number[] = [];
  for await (const chunk of vm.serial.readable) all.push(...chunk);
  return all;
}

for (const [name, code, reason, status] of [
  ["powers off", POWER_OFF, "power-off", 1],
  ["reboots", REBOOT, "reboot", 0],
  ["halts", HALT, "halt", 2],
  ["faults three times", TRIPLE_FAULT, "triple-fault", 3],
  ["writes to the debug exit port", out(0xf4, 21), "debug-exit", 43],
] as const) {
  test(`a guest that ${name}`, limit, async () => {
    await using vm = await create([...print("here\n"), ...code]);
    await vm.start();
    const [output, exit] = await Promise.all([text(vm), vm.exited]);
    assert.equal(output, "here\n");
    assert.deepEqual(exit, { reason, status });
    const { vcpus } = await vm.statistics();
    assert.equal(vcpus.length, 3);
    assert.ok(vcpus[0].instructions > 0);
    assert.equal(vcpus[1].instructions, 0, "nobody started it");
  });
}

const writeApic = (register: number, value: number): number[] => store(0xfee00000 + register, value);
const INIT_OTHERS = writeApic(0x300, 0xc4500);
const NMI_OTHERS = writeApic(0x300, 0xc4400);

for (const threads of ["one", "each"] as const) {
  for (const [which, code] of [
    ["were never started", []],
    ["wait for a start-up IPI again", INIT_OTHERS],
  ] as const) {
    test(`NMIs to processors that ${which} keep no halted machine alive (threads: ${threads})`, limit, async () => {
      const kernel = multibootKernel([...writeApic(0xf0, 0x1ff), ...code, ...NMI_OTHERS, ...HALT]);
      await using vm = await VirtualMachine.create({ kernel, threads, cpus: 3 });
      await vm.start();
      assert.deepEqual(await vm.exited, { reason: "halt", status: 2 });
    });
  }
}

for (const threads of ["one", "each"] as const) {
  test(
    `processors halted with interrupts off wait for an NMI where that is asked for (threads: ${threads})`,
    limit,
    async () => {
      // The NMI finds an IDT of no entries.
      const kernel = multibootKernel([...TRIPLE_FAULT.slice(0, -2), ...print("h"), ...HALT]);
      await using vm = await VirtualMachine.create({ kernel, threads, cpus: 2, onHalt: "wait" });
      await vm.start();
      while ((await vm.status()).vcpus[0].activity !== "halted");
      let over = false;
      void vm.exited.then(() => {
        over = true;
      });
      for (let n = 0; n < 20; n++) await vm.status();
      assert.equal(over, false);
      await vm.nmi(0);
      assert.deepEqual(await vm.exited, { reason: "triple-fault", status: 3 });
    },
  );
}

test("input arrives whole and in order", limit, async () => {
  await using vm = await create([...ECHO, ...POWER_OFF]);
  await vm.start();
  const sent = Array.from({ length: 5000 }, (_, n) => 0x61 + (n % 7));
  const writer = vm.serial.writable.getWriter();
  void writer.write(Uint8Array.from(sent)).then(() => writer.write(Uint8Array.of(0x71)));
  assert.equal(await text(vm), `${String.fromCharCode(...sent)}q`);
});

test("a vCPU that spins can be paused, looked at, resumed, reset and stopped", limit, async () => {
  await using vm = await create([...print("x"), ...SPIN]);
  await vm.start();
  for (let round = 0; round < 5; round++) {
    await vm.pause();
    const before = await vm.status();
    assert.equal(before.state, "paused");
    const after = await vm.status();
    assert.deepEqual(after, before, "nothing moves while it is paused");
    await vm.resume();
    while ((await vm.status()).vcpus[0].instructions === after.vcpus[0].instructions);
  }
  await vm.pause();
  await vm.setRegisters({ rbx: "1234" });
  assert.equal((await vm.registers()).rbx, "0000000000001234");
  assert.equal((await vm.registers(2)).rip, "000000000000fff0", "one that waits for its start-up IPI");
  await vm.resume();
  await vm.reset();
  while ((await vm.registers()).rbx === "0000000000001234");
  await vm.stop();
  assert.deepEqual(await vm.exited, { reason: "stopped", status: 4 });
});

/** Sends bytes that count up. */
const COUNT = [0x66, 0xba, 0xf8, 0x03, 0x88, 0xd8, 0xee, 0xfe, 0xc3, 0xeb, 0xf9];

test("what a vCPU wrote last before a snapshot is in it: no byte is lost, none comes twice", limit, async () => {
  const options = { kernel: multibootKernel(COUNT), threads: "each", cpus: 2, memory: "16M" };
  let vm = await VirtualMachine.create(options);
  const seen: number[] = [];
  for (let round = 0; round < 4; round++) {
    const all = bytesOf(vm);
    await vm.start();
    await assert.rejects(vm.snapshot(), /paused/);
    await new Promise((resolve) => setTimeout(resolve, 5));
    await vm.pause();
    const snapshot = await vm.snapshot();
    await vm.stop();
    seen.push(...(await all));
    vm = await VirtualMachine.create({ ...options, snapshot });
  }
  await vm.stop();
  assert.ok(seen.length > 200);
  const wrong = seen.findIndex((byte, n) => byte !== ((seen[0] + n) & 0xff));
  assert.equal(wrong, -1, `of ${seen.length} bytes`);
});

test("what a machine does without it says, and does not", limit, async () => {
  const kernel = multibootKernel([...print("posted?"), ...HALT]);
  const all = ["posted-accesses", "halt-polling", "owed-ticks", "larger-regions"];
  for (const [without, posted] of [
    [all, 0],
    [all.slice(1), 7],
    [[], 7],
  ] as const) {
    await using vm = await VirtualMachine.create({ kernel, threads: "each", without });
    assert.deepEqual((await vm.status()).without, without);
    await vm.start();
    assert.equal(await text(vm), "posted?");
    await vm.exited;
    assert.equal((await vm.statistics()).vcpus[0].thread?.writesPosted, posted);
  }
});

for (const threads of ["one", "each"] as const) {
  test(`a snapshot with a processor that cannot be is refused (threads: ${threads})`, limit, async () => {
    const kernel = multibootKernel(SPIN);
    await using vm = await VirtualMachine.create({ kernel, threads, memory: "16M" });
    await vm.start();
    await vm.pause();
    const snapshot = await vm.snapshot();
    const [vcpu] = snapshot.state.fields.vcpus as unknown as {
      readonly engine: { fields: { [name: string]: unknown } };
    }[];
    vcpu.engine.fields.efer = 0x500;
    await assert.rejects(
      VirtualMachine.create({ kernel, threads, memory: "16M", snapshot }),
      (error) => error instanceof SkepError && error.code === "config" && /EFER.LMA is/.test(error.message),
    );
  });
}

test("a snapshot of a machine with other vCPUs or less memory is refused", limit, async () => {
  const options = { kernel: multibootKernel(SPIN), threads: "each", cpus: 2, memory: "16M" };
  await using vm = await VirtualMachine.create(options);
  await vm.start();
  await vm.writeMemory(0xf00000, Uint8Array.of(1));
  await vm.pause();
  const snapshot = await vm.snapshot();
  await assert.rejects(VirtualMachine.create({ ...options, cpus: 3, snapshot }), /2 vCPUs, and this machine 3/);
  await assert.rejects(VirtualMachine.create({ ...options, memory: "8M", snapshot }), /memory where this machine has/);
});

test("a request to a vCPU that cannot be met is refused", limit, async () => {
  await using vm = await create(SPIN);
  await vm.start();
  await assert.rejects(vm.registers(3), /no vCPU 3/);
  await assert.rejects(vm.setRegisters({ rax: "1" }), /paused/);
  await vm.pause();
  await assert.rejects(vm.setRegisters({ rax: "xyz" }), /no hexadecimal/);
});

/** Starts processor 1 at 8000H, where it sets a byte at 9000H, and waits for that until 2^32 ticks of the TSC are over. */
function startProcessor(): number[] {
  const inTime = [...print("in time"), ...POWER_OFF];
  const late = [...print("late"), ...POWER_OFF];
  // CMP BYTE [9000H], 1; JE over the rest. RDTSC; SUB EAX, ESI; SBB EDX, EDI; JE back.
  const wait = [0x80, 0x3d, ...le32(0x9000), 1, 0x74, 8 + late.length, 0x0f, 0x31, 0x29, 0xf0, 0x19, 0xfa, 0x74, 0xef];
  return [
    // MOV BYTE [9000H], 1; CLI; HLT in real mode.
    ...store(0x8000, 0x900006c6),
    ...store(0x8004, 0x90f4fa01),
    ...store(0xfee00310, 1 << 24),
    ...store(0xfee00300, 0x4500),
    ...store(0xfee00300, 0x4608),
    // RDTSC; MOV ESI, EAX; MOV EDI, EDX.
    ...[0x0f, 0x31, 0x89, 0xc6, 0x89, 0xd7],
    ...wait,
    ...late,
    ...inTime,
  ];
}

test("the guest's time stands still while the host starts a vCPU's thread", limit, async () => {
  const { promise, resolve } = Promise.withResolvers<Error | undefined>();
  const messages: FromMachine[] = [];
  const thread = startMachineThread(
    {
      machine: { threads: "each", cpus: 2 },
      kernel: { kernel: multibootKernel(startProcessor()), commandLine: "", modules: [] },
      disks: [],
    },
    { message: (message) => messages.push(message), gone: resolve },
    new URL("./slow-vcpu.ts", import.meta.url),
  );
  await thread.mailbox.send(MESSAGE.COMMAND, new TextEncoder().encode(JSON.stringify({ command: "start", id: 1 })));
  assert.equal(await promise, undefined);
  const output = messages.flatMap((message) => (message.type === "output" ? [...message.bytes] : []));
  assert.equal(String.fromCharCode(...output), "in time");
});

test("a vCPU's thread that fails ends the machine, and the report names it", limit, async () => {
  const { promise, resolve } = Promise.withResolvers<Error | undefined>();
  const messages: FromMachine[] = [];
  startMachineThread(
    {
      machine: { threads: "each", cpus: 2 },
      kernel: { kernel: multibootKernel(SPIN), commandLine: "", modules: [] },
      disks: [],
    },
    { message: (message) => messages.push(message), gone: resolve },
    new URL("./failing-vcpu.ts", import.meta.url),
  );
  const error = await promise;
  assert.match(error?.message ?? "", /^vCPU 0: out of luck$/);
});
