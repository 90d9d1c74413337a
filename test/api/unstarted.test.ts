// vCPUs that the guest never started, where each has a thread of its own: they answer as on a thread, and have none.

import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualMachine } from "../../src/index.ts";
import type { ApicDump } from "../../src/machine/vcpu-control.ts";
import type { Section } from "../../src/vmm/state.ts";
import { le32, multibootKernel, SPIN, store } from "./guest.ts";

const limit = { timeout: 120_000 };
/** CMP BYTE [address], value; JNE back to it. */
const await8 = (address: number, value: number): number[] => [0x80, 0x3d, ...le32(address), value, 0x75, 0xf7];

const GO = 0x9004;
/** INIT and SIPI to a processor, which at 8000H adds one to the byte at 9000H, and halts. */
const startProcessor = (apicId: number): number[] => [
  ...store(0xfee00310, apicId << 24),
  ...store(0xfee00300, 0x4500),
  ...store(0xfee00300, 0x4608),
];
/** Starts processor 1; and processor 2 as soon as the byte at 9004H says so. */
const GUEST = [
  // In real mode: LOCK INC BYTE [9000H]; CLI; HLT.
  ...store(0x8000, 0x0006fef0),
  ...store(0x8004, 0x90f4fa90),
  ...startProcessor(1),
  ...await8(GO, 1),
  ...startProcessor(2),
  ...SPIN,
];
const options = { kernel: multibootKernel(GUEST), threads: "each", cpus: 8, memory: "16M" };

async function started(vm: VirtualMachine, count: number): Promise<void> {
  while ((await vm.readMemory(0x9000, 1))[0] !== count);
}

const threadsOf = async (vm: VirtualMachine): Promise<number> => (await vm.status()).vcpuThreads;

test("status, registers, local APICs, NMI, LINT and a snapshot start no thread", limit, async () => {
  await using vm = await VirtualMachine.create(options);
  assert.equal(await threadsOf(vm), 1);
  await vm.start();
  await started(vm, 1);
  assert.equal(await threadsOf(vm), 2);
  const { vcpus } = await vm.status();
  assert.deepEqual(
    vcpus.map(({ cpu, apicId }) => [cpu, apicId]),
    Array.from({ length: 8 }, (_, n) => [n, n]),
  );
  assert.deepEqual(
    vcpus.slice(2).map(({ activity, position }) => `${activity} ${position}`),
    Array.from({ length: 6 }, () => "wait-for-sipi f000:fff0 cpl 0 if 0"),
  );
  const apics = (await vm.control({ what: "vcpu", cpu: "all", request: { what: "apic" } })) as ApicDump[];
  assert.deepEqual(
    apics.slice(2).map(({ cpu, mode, base, registers }) => [cpu, mode, base, registers.ID]),
    Array.from({ length: 6 }, (_, n) => [n + 2, "xapic", "00000000fee00800", `0${n + 2}000000`]),
  );
  await vm.registers(5);
  for (let cpu = 2; cpu < 8; cpu++) await vm.nmi(cpu);
  await vm.lint(0, 7);
  await vm.statistics();
  await vm.pause();
  await vm.snapshot();
  assert.equal(await threadsOf(vm), 2);
});

test("they answer as on a thread, and as on one thread with all others", limit, async () => {
  await using vm = await VirtualMachine.create(options);
  await using one = await VirtualMachine.create({ ...options, threads: "one" });
  // Setting a register starts the thread.
  await vm.setRegisters({ rbx: "0" }, 5);
  assert.equal(await threadsOf(vm), 2);
  for (const other of [vm, one]) {
    assert.deepEqual(await vm.registers(4), await other.registers(5));
    const { cpu: _, registers, ...apic } = await vm.localApic(4);
    const { cpu: __, registers: theirs, ...otherApic } = await other.localApic(5);
    assert.deepEqual(apic, otherApic);
    assert.deepEqual({ ...registers, ID: theirs.ID }, theirs);
  }
});

test("a machine made from a snapshot starts no threads for them either, and the guest starts them", limit, async () => {
  await using vm = await VirtualMachine.create(options);
  await vm.start();
  await started(vm, 1);
  await vm.nmi(2);
  await vm.pause();
  const snapshot = await vm.snapshot();
  const vcpusOf = (state: Section): unknown => state.fields.vcpus;
  for (const threads of ["one", "each"]) {
    await using copy = await VirtualMachine.create({ ...options, threads, snapshot });
    assert.equal(await threadsOf(copy), threads === "one" ? 1 : 2);
    assert.deepEqual(vcpusOf((await copy.snapshot()).state), vcpusOf(snapshot.state));
    await copy.writeMemory(GO, Uint8Array.of(1));
    await copy.start();
    // The NMI that was held is discarded by the INIT: it would lead anywhere.
    await started(copy, 2);
    assert.equal(await threadsOf(copy), threads === "one" ? 1 : 3);
  }
});

for (const mode of [{ threads: "each" }, { threads: "one" }, { deterministic: true }]) {
  test(`a reset sets the TSCs of all vCPUs to zero at one time: ${JSON.stringify(mode)}`, limit, async () => {
    const { threads: _, ...rest } = options;
    await using vm = await VirtualMachine.create({ ...rest, ...mode });
    await vm.start();
    await started(vm, 1);
    await vm.pause();
    // Guests can have moved theirs before.
    await vm.setRegisters({ "tsc.offset": "123", "msr.tscAdjust": "123" }, 1);
    await vm.reset();
    const { timeNs, vcpuThreads } = await vm.status();
    assert.ok(timeNs > 0);
    const offset = BigInt.asUintN(64, -BigInt(timeNs)).toString(16);
    const offsetsOf = async (machine: VirtualMachine): Promise<(readonly string[])[]> =>
      Promise.all(
        Array.from({ length: 8 }, async (_, cpu) => {
          const registers = await machine.registers(cpu);
          return [registers["tsc.offset"], registers["msr.tscAdjust"]];
        }),
      );
    const zero = Array.from({ length: 8 }, () => [offset, "0000000000000000"]);
    assert.deepEqual(await offsetsOf(vm), zero);

    // Also in processors that are started afterwards, here and in a copy.
    await using copy = await VirtualMachine.create({ ...rest, ...mode, snapshot: await vm.snapshot() });
    assert.equal((await copy.status()).vcpuThreads, 1);
    for (const [machine, threads] of [
      [vm, vcpuThreads],
      [copy, 1],
    ] as const) {
      assert.equal(await threadsOf(machine), threads);
      await machine.writeMemory(GO, Uint8Array.of(1));
      await (machine === vm ? vm.resume() : copy.start());
      await started(machine, 2);
      assert.deepEqual(await offsetsOf(machine), zero);
    }
  });
}

test("a machine with APIC ids of more than eight bits that is looked at has one thread of a vCPU", limit, async () => {
  await using vm = await VirtualMachine.create({ ...options, cpus: 300 });
  const { vcpus, vcpuThreads } = await vm.status();
  assert.equal(vcpus.length, 300);
  assert.equal(vcpuThreads, 1);
  const { mode, registers } = await vm.localApic(299);
  assert.deepEqual([mode, registers.ID, registers.LDR], ["x2apic", "0000012b", "00120800"]);
});
