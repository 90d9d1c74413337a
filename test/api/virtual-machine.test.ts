// The public API with guests of a few instructions: endings, consoles, pause, reset, stop, errors.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type MachineExit, SkepError, VirtualMachine, type VirtualMachineOptions } from "../../src/index.ts";
import type { VcpuSections } from "../../src/machine/processors.ts";
import type { Section } from "../../src/vmm/state.ts";
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

const limit = { timeout: 60_000 };

async function create(code: readonly number[], options: Partial<VirtualMachineOptions> = {}): Promise<VirtualMachine> {
  return VirtualMachine.create({ kernel: multibootKernel(code), memory: "16M", ...options });
}

async function textOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += new TextDecoder().decode(chunk);
  return text;
}

async function endOf(code: readonly number[], options: Partial<VirtualMachineOptions> = {}): Promise<MachineExit> {
  await using vm = await create(code, options);
  await vm.start();
  return await vm.exited;
}

test("each way in which a guest ends", limit, async () => {
  assert.deepEqual(await endOf(REBOOT), { reason: "reboot", status: 0 });
  assert.deepEqual(await endOf(POWER_OFF), { reason: "power-off", status: 1 });
  assert.deepEqual(await endOf(HALT), { reason: "halt", status: 2 });
  assert.deepEqual(await endOf(TRIPLE_FAULT), { reason: "triple-fault", status: 3 });
  assert.deepEqual(await endOf(out(0xf4, 21), { debugExit: true }), { reason: "debug-exit", status: 43 });
  assert.deepEqual(await endOf(out(0x501, 0), { debugExit: 0x501 }), { reason: "debug-exit", status: 1 });
  // Without a debug exit port the byte goes nowhere.
  assert.deepEqual(await endOf([...out(0xf4, 21), ...HALT]), { reason: "halt", status: 2 });
});

test("output can be read, before and after the end; then the stream ends", limit, async () => {
  await using vm = await create([...print("hello"), ...HALT]);
  await vm.start();
  await vm.exited;
  assert.equal(await textOf(vm.serial.readable), "hello");
});

test("input that is typed before the guest listens waits for it", limit, async () => {
  await using vm = await create([...ECHO, ...HALT]);
  const writer = vm.serial.writable.getWriter();
  await writer.write(new TextEncoder().encode("typed early, q"));
  await vm.start();
  assert.equal(await textOf(vm.serial.readable), "typed early, q");
  assert.equal((await vm.exited).reason, "halt");
});

test("much input arrives whole and in order", limit, async () => {
  await using vm = await create([...ECHO, ...HALT]);
  const sent = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) & 0xff).map((b) =>
    b === 0x71 ? 0 : b,
  );
  await vm.start();
  const writer = vm.serial.writable.getWriter();
  void writer.write(sent).then(() => writer.write(new TextEncoder().encode("q")));
  const received: number[] = [];
  for await (const chunk of vm.serial.readable) received.push(...chunk);
  assert.equal(received.length, sent.length + 1);
  assert.deepEqual(Uint8Array.from(received.slice(0, -1)), sent);
});

test("a guest that writes without end is held back while its reader is slow, and stops when told", limit, async () => {
  // out dx, al for ever.
  await using vm = await create([...print("x"), 0xee, 0xeb, 0xfd]);
  await vm.start();
  const reader = vm.serial.readable.getReader();
  await reader.read();
  const instructions = async (): Promise<number> => (await vm.statistics()).vcpus[0].instructions;
  // Until the buffers on the way are full.
  let before = -1;
  for (let now = await instructions(); now !== before; now = await instructions()) {
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await vm.stop();
  assert.deepEqual(await vm.exited, { reason: "stopped", status: 4 });
});

test("the event loop stays free, and a spinning guest can be paused, resumed, and stopped", limit, async () => {
  await using vm = await create(SPIN);
  await assert.rejects(vm.pause(), SkepError);
  await vm.start();
  await assert.rejects(vm.start(), /running/);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  await new Promise((resolve) => setTimeout(resolve, 200));
  clearInterval(timer);
  assert.ok(ticks > 15, `${ticks} ticks`);
  await vm.pause();
  const paused = await vm.statistics();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const still = await vm.statistics();
  assert.equal(still.vcpus[0].instructions, paused.vcpus[0].instructions);
  assert.equal(still.timeNs, paused.timeNs);
  await vm.resume();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const running = await vm.statistics();
  assert.ok(running.vcpus[0].instructions > paused.vcpus[0].instructions);
  assert.ok(running.timeNs > paused.timeNs && running.timeNs - paused.timeNs < 2e9);
  await vm.stop();
  await vm.stop();
  assert.equal((await vm.exited).reason, "stopped");
  assert.ok((await vm.statistics()).vcpus[0].instructions >= running.vcpus[0].instructions);
  await assert.rejects(vm.reset(), /ended/);
});

test("reset loads the kernel anew", limit, async () => {
  await using vm = await create([...print("A"), ...SPIN]);
  const reader = vm.serial.readable.getReader();
  await vm.start();
  assert.deepEqual((await reader.read()).value, Uint8Array.of(0x41));
  await vm.reset();
  assert.deepEqual((await reader.read()).value, Uint8Array.of(0x41));
});

test("an armed TSC deadline follows a TSC that is set from outside", limit, async () => {
  // LVT timer in TSC-deadline mode; ECX = 6E0H, EDX = 1000H, EAX = 0; WRMSR.
  const arm = [...store(0xfee00320, 0x40040), 0xb9, ...le32(0x6e0), 0xba, ...le32(0x1000), 0x31, 0xc0, 0x0f, 0x30];
  await using vm = await create([...arm, ...print("A"), ...SPIN]);
  await vm.start();
  await vm.serial.readable.getReader().read();
  await vm.pause();
  const expiry = async (): Promise<unknown> => {
    const [{ apic }] = (await vm.snapshot()).state.fields.vcpus as unknown as VcpuSections[];
    return (apic.fields.timer as Section).fields.expiry;
  };
  assert.equal(await expiry(), 2 ** 44);
  await vm.setRegisters({ "tsc.offset": "80000000000" });
  assert.equal(await expiry(), 2 ** 43);
});

for (const threads of ["one", "each"])
  test(`ISA interrupt lines are driven from outside: threads ${threads}`, limit, async () => {
    // Entry 5 of the I/O APIC: vector 45H, an edge, to processor 0.
    const entry = [...store(0xfec00000, 0x10 + 2 * 5), ...store(0xfec00010, 0x45)];
    await using vm = await create([...entry, ...print("A"), ...SPIN], { threads });
    const reader = vm.serial.readable.getReader();
    await vm.start();
    await reader.read();
    const requested = async (): Promise<string> => (await vm.localApic()).registers.IRR2;
    const assertions = async (): Promise<number[]> => (await vm.ioApic()).map((pin) => pin.assertions);
    const idle = await assertions();
    await vm.irq(6, "pulse");
    assert.equal(await requested(), "00000000");
    await vm.irq(5, "pulse");
    assert.equal(await requested(), "00000020");
    assert.deepEqual(await assertions(), idle);
    await vm.irq(0, "assert");
    await vm.irq(15, "assert");
    await vm.irq(15, "assert");
    const held = await assertions();
    assert.deepEqual([held[2] - idle[2], held[15] - idle[15]], [1, 1]);
    await vm.irq(0, "deassert");
    assert.equal((await assertions())[2], idle[2]);
    await vm.reset();
    await reader.read();
    assert.equal((await assertions())[15], idle[15]);
    await assert.rejects(vm.irq(16, "assert"), /no ISA interrupt line 16/);
  });

test("status says what is in use, asked for or not", limit, async () => {
  const used = async (options: Partial<VirtualMachineOptions>): Promise<object> => {
    await using vm = await create(SPIN, options);
    const { state: _, timeNs: __, vcpus: ___, ...inUse } = await vm.status();
    return inUse;
  };
  assert.deepEqual(await used({}), {
    memoryBytes: 16 * 2 ** 20,
    engine: "translate",
    compiler: "thread",
    threads: "one",
    cpu: "x86-64-v2",
    topology: { sockets: 1, cores: 1, threads: 1 },
    x2apicIds: false,
    onHalt: "end",
    clock: "freeze",
    without: [],
    vcpuThreads: 1,
  });
  assert.deepEqual(await used({ cpus: "4,threads=2", deterministic: 7, cpu: "x86-64-v2,+movbe", memory: "8M" }), {
    memoryBytes: 8 * 2 ** 20,
    engine: "translate",
    compiler: "same",
    threads: "one",
    seed: 7,
    cpu: "x86-64-v2,+movbe",
    topology: { sockets: 1, cores: 2, threads: 2 },
    x2apicIds: false,
    onHalt: "end",
    clock: "freeze",
    without: [],
    vcpuThreads: 1,
  });
  assert.deepEqual(await used({ cpus: "4,sockets=2", engine: "interpret", onHalt: "wait", clock: "catch-up" }), {
    memoryBytes: 16 * 2 ** 20,
    engine: "interpret",
    threads: "each",
    cpu: "x86-64-v2",
    topology: { sockets: 2, cores: 2, threads: 1 },
    x2apicIds: false,
    onHalt: "wait",
    clock: "catch-up",
    without: [],
    vcpuThreads: 1,
  });
});

test("the exit event says the same as the promise", limit, async () => {
  await using vm = await create(HALT);
  const { promise, resolve } = Promise.withResolvers<Event>();
  vm.addEventListener("exit", resolve);
  await vm.start();
  const event = await promise;
  assert.deepEqual("exit" in event && event.exit, await vm.exited);
});

test("a signal stops a machine, or its making", limit, async () => {
  const controller = new AbortController();
  const vm = await create(SPIN, { signal: controller.signal });
  await vm.start();
  controller.abort();
  assert.equal((await vm.exited).reason, "stopped");
  await assert.rejects(create(SPIN, { signal: AbortSignal.abort(new Error("too late")) }), /too late/);
  const making = new AbortController();
  const made = create(SPIN, { signal: making.signal });
  making.abort(new Error("changed my mind"));
  await assert.rejects(made, /changed my mind/);
});

test("what is wrong with the options is a SkepError with a code", limit, async () => {
  const wrong: [Partial<VirtualMachineOptions>, string, RegExp][] = [
    [{ memory: "many" }, "config", /memory "many" is no size/],
    [{ memory: "8G" }, "config", /too large/],
    [{ memory: "1M" }, "config", /too small/],
    [{ cpus: 1000 }, "config", /1000 CPUs/],
    [{ cpu: "z80" }, "config", /unknown CPU model/],
    [{ cpu: "x86-64-v2,+warp" }, "config", /unknown CPU flag "warp"/],
    [{ engine: "magic" }, "config", /unknown engine/],
    [{ trace: ["everything"] }, "config", /no trace of "everything"/],
    [{ debugExit: 70000 }, "config", /no I\/O port/],
    [{ kernel: "/nonexistent/vmlinuz" }, "file", /cannot read kernel .*: there is no such file/],
    [{ kernel: new Uint8Array(3) }, "boot", /kernel/],
    [{ disks: [{ file: "/nonexistent/disk" }] }, "disk", /cannot open disk image/],
    [{ initrd: new Uint8Array(17 * 2 ** 20) }, "boot", /initramfs of 17 MiB does not fit/],
  ];
  for (const [options, code, message] of wrong) {
    await assert.rejects(create(HALT, options), (error) => {
      assert.ok(error instanceof SkepError, String(error));
      assert.equal(error.code, code);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  }
});
