// What this board's vCPUs do not wait for, where they have threads of their own. The I/O APIC: 82093AA data sheet (290566), 3.1 and 3.2.4.

import assert from "node:assert/strict";
import { test } from "node:test";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { webHost } from "../../src/host/host.ts";
import { MAILBOX_BYTES, MailboxReceiver } from "../../src/host/mailbox.ts";
import { machineConfig } from "../../src/machine/config.ts";
import { Pc, type PcOptions } from "../../src/machine/pc.ts";
import { postedAccesses } from "../../src/machine/wiring.ts";
import type { AccessSize } from "../../src/vmm/bus.ts";
import { HostClock } from "../../src/vmm/clock.ts";
import type { IoAccess } from "../../src/vmm/io-space.ts";
import { ControlArea, GLOBAL, RUN_STATE, VCPU } from "../../src/vmm/parallel/control-area.ts";
import { ExitChannel } from "../../src/vmm/parallel/exit-channel.ts";
import { VcpuLink } from "../../src/vmm/parallel/vcpu-link.ts";
import { Random } from "../devices/fakes.ts";
import { makeChannel, Shared } from "../vmm/shared-area.ts";

test("an I/O APIC's entries are written without waiting, and the devices' thread is woken for those that let interrupts through", () => {
  const { links } = new Shared();
  const [link] = links;
  let rings = 0;
  const channel = makeChannel(link, { ring: () => void rings++ }, postedAccesses({ trace: [], without: [] }));
  const write = (index: number, value: number): number => {
    const before = rings;
    channel.writeMmio(0xfec0_0000, 4, index);
    channel.writeMmio(0xfec0_0010, 4, value);
    return rings - before;
  };
  assert.equal(write(0x12, 0x1_0000), 0, "masked");
  assert.equal(write(0x13, 0), 0, "its destination, processor 0");
  assert.equal(write(0x12, 0x0030), 1, "let through");
  assert.equal(write(0x13, 0x0100_0000), 1, "a destination: of what waits it may be the first that accepts");
  assert.equal(link.load(VCPU.WRITES_POSTED), 8);
  assert.equal(channel.statistics.exits, 0);
});

const START = 1_000_000_000_000;

/** Two machines with the same devices. The test is the processor of both: of one through a vCPU's exit channel, of the other directly. */
class Boards {
  readonly direct: Pc;
  readonly parallel: Pc;
  readonly channel: ExitChannel;
  private now = 0;

  constructor() {
    const config = machineConfig({ engine: "interpret", memory: "16M", serialPorts: 2 });
    const host = { ...webHost, engineModule: engineModule(), now: () => this.now, wallClock: () => START };
    const options = (): Omit<PcOptions, "threads"> & { clock: HostClock } => ({
      config,
      disks: [],
      host,
      clock: new HostClock(host.now),
      trace: {},
      onSerial: () => {},
      onConsole: () => {},
      onRoom: () => {},
    });
    const first = options();
    this.direct = new Pc(first);
    first.clock.start();

    const second = options();
    let control: SharedArrayBuffer | undefined;
    const mailboxMemory = new SharedArrayBuffer(MAILBOX_BYTES);
    this.parallel = new Pc({
      ...second,
      threads: {
        clock: second.clock,
        mailbox: new MailboxReceiver(mailboxMemory),
        mailboxMemory,
        engineModule: host.engineModule,
        spawn: (parts) => {
          control = parts.control;
        },
      },
    });
    second.clock.start();
    assert.ok(control !== undefined);
    const area = new ControlArea(control);
    const bell = {
      ring: () => {
        if (link.load(VCPU.EXIT_TURN) !== 0) this.serve();
      },
    };
    const link = new VcpuLink(area, 0, () => {}, bell);
    link.enter(RUN_STATE.PARKED);
    // As a bootstrap processor is handed over.
    link.store(VCPU.APIC_ENABLED, 1);
    Atomics.add(area.words, GLOBAL.APIC_GENERATION, 1);
    this.channel = new ExitChannel(area, link, bell, postedAccesses(config), () => second.clock.now());
    this.serve();
  }

  /** The devices' thread gets to what was posted. The direct access, if there is one, comes before the other: what is due then is due on both. */
  serve(): void {
    this.parallel.processors.run(() => true);
    this.direct.timers.run(this.now);
  }

  /** Time goes on where nothing is under way: when what was posted is done is nobody's business. */
  advance(ns: number): void {
    this.serve();
    this.now += ns;
    this.serve();
  }

  /** A guest that does not listen begins to where it polls, and polls are counted only where they are asked for. */
  receive(byte: number): void {
    this.serve();
    const ports = [this.direct.serial[0], this.parallel.serial[0]];
    if (ports.every(({ listening }) => listening)) for (const port of ports) port.receive(Uint8Array.of(byte));
  }
}

/** A random access. Those that select are followed by those that they select for. */
function randomAccess(random: Random, io: IoAccess): number | undefined {
  const size = ([1, 2, 4, 4] as const)[random.below(4)];
  const writes = random.below(3) === 0;
  const value = random.below(4) === 0 ? 0xffff_ffff : random.next();
  const port = (at: number, width: AccessSize = 1, written = value % 2 ** (8 * width)): number | undefined => {
    if (!writes) return io.readPort(at, width);
    io.writePort(at, width, written);
    return undefined;
  };
  const memory = (at: number, width: AccessSize = 4, written = value % 2 ** (8 * width)): number | undefined => {
    if (!writes) return io.readMmio(at, width);
    io.writeMmio(at, width, written);
    return undefined;
  };
  switch (random.below(9)) {
    case 0: {
      const func = [0, 0x0800, 0x1000, 0x1800, 0x0900, 0x1_0000][random.below(6)];
      if (random.below(4) !== 0) io.writePort(0xcf8, 4, 0x8000_0000 + func + 4 * random.below(64));
      return port(0xcfc + random.below(4), size);
    }
    case 1: {
      const any = random.below(4) === 0 ? random.below(256) : 0x10 + random.below(48);
      // Those of the serial ports' pins stay masked: their interrupts may come later than what is posted.
      const index = any >= 0x16 && any <= 0x19 ? 0x1a : any;
      if (random.below(4) !== 0) io.writeMmio(0xfec0_0000, ([1, 4] as const)[random.below(2)], index);
      const written = [value, 0x1_0000, value | 0x1_0000, 0][random.below(4)] >>> 0;
      return memory(0xfec0_0010, random.below(8) === 0 ? size : 4, written);
    }
    case 2:
      if (random.below(4) !== 0) io.writePort(0x70, 1, random.below(random.below(2) === 0 ? 16 : 256));
      return port(0x71);
    case 3:
      return memory(0xfed0_0000 + 4 * random.below(random.below(2) === 0 ? 8 : 100), random.below(8) === 0 ? 2 : 4);
    case 4:
      return port(0x3f8 + random.below(8), random.below(16) === 0 ? 2 : 1);
    case 5:
      // LCR or MCR, which change what the others mean.
      if (random.below(2) === 0) io.writePort(0x2fb + random.below(2), 1, value & 0xff);
      return port([0x2f8, 0x2f9, 0x2fd][random.below(3)]);
    case 6:
      return port([0x20, 0x21, 0xa0, 0xa1][random.below(4)], 1, [value & 0xff, 0xff, 0xfe, 0x20][random.below(4)]);
    case 7:
      return port(0x600 + 2 * random.below(2), 2);
    default:
      return port(0x60c + random.below(4));
  }
}

test("a vCPU that does not wait for its devices reads what one reads that does", () => {
  let exits = 0;
  let reads = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const boards = new Boards();
    const random = new Random(seed);
    for (let step = 0; step < 2500; step++) {
      switch (random.below(24)) {
        case 0:
          boards.serve();
          break;
        case 1:
          boards.advance(random.below([1_000, 10_000_000, 400_000_000][random.below(3)]));
          break;
        case 2:
          boards.receive(random.below(256));
          break;
        default: {
          const choice = random.next();
          const expected = randomAccess(new Random(choice), boards.direct.io);
          const value = randomAccess(new Random(choice), boards.channel);
          if (value !== undefined) reads++;
          assert.equal(value, expected, `seed ${seed}, step ${step}, access ${choice}`);
        }
      }
    }
    exits += boards.channel.statistics.exits;
    assert.ok(boards.channel.statistics.posted > 500);
  }
  assert.ok(exits < reads, `${exits} of ${reads} reads and the writes were waited for`);
});
