// Runs a machine on a thread that does nothing else: execute, sleep while the guest is halted, look into the mailbox, send output. The same
// code runs in a worker of Node and of a browser; what differs is behind `post` and the `Host`.

import { SkepError } from "../errors.ts";
import type { Host } from "../host/host.ts";
import type { MailboxReceiver } from "../host/mailbox.ts";
import { RIP } from "../isa/state.ts";
import { HostClock, type MachineClock } from "../vmm/clock.ts";
import { InstructionClock } from "../vmm/instruction-clock.ts";
import { StateError } from "../vmm/state.ts";
import { type TraceKind, traceTo } from "../vmm/trace.ts";
import type { VmExit } from "../vmm/vm.ts";
import type { DiskConfig, KernelConfig, MachineConfig } from "./config.ts";
import { answerControl, type ControlRequest } from "./control.ts";
import { kernelSymbols } from "./kallsyms.ts";
import { LOOK_EVERY_NS, LostTime } from "./lost-time.ts";
import { Machine, type MachineOptions } from "./machine.ts";
import { OutputBatches } from "./output.ts";
import type { GroupThreads } from "./parallel/vcpu-group.ts";
import { VIRTIO_CONSOLE } from "./pc.ts";
import { Profile } from "./profile.ts";
import {
  CHANNEL,
  type Command,
  type CommandMessage,
  type ExitRecord,
  type FromMachine,
  MESSAGE,
  type SpawnMessage,
} from "./protocol.ts";
import { SeededHost } from "./seeded-host.ts";
import { restoreSnapshot, type Snapshot, saveSnapshot } from "./snapshot.ts";
import { parseSymbols } from "./symbols.ts";

export interface RunnerOptions {
  readonly config: MachineConfig;
  readonly disks: readonly DiskConfig[];
  readonly host: Host;
  readonly translator?: MachineOptions["translator"];
  readonly checker?: MachineOptions["checker"];
  readonly mailbox: MailboxReceiver;
  readonly mailboxMemory: SharedArrayBuffer;
  post(message: FromMachine | SpawnMessage): void;
  /** What the machine goes on from, instead of booting its kernel. */
  readonly snapshot?: Snapshot | undefined;
  /** Reads the kernel and what goes with it; asked again at each reset. */
  kernel(): KernelConfig;
}

/** A sleep shorter than this is not worth the waking. */
const SLEEP_MIN_MS = 0.02;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

const EXITS: { readonly [reason in VmExit["reason"]]: ExitRecord } = {
  reset: { reason: "reboot", status: 0 },
  "power-off": { reason: "power-off", status: 1 },
  halt: { reason: "halt", status: 2 },
  "triple-fault": { reason: "triple-fault", status: 3 },
  "debug-exit": { reason: "debug-exit", status: 0 },
};
const STOPPED: ExitRecord = { reason: "stopped", status: 4 };

function exitRecord(exit: VmExit): ExitRecord {
  const record = EXITS[exit.reason];
  return exit.reason === "debug-exit" ? { ...record, status: exit.status } : record;
}

export class MachineRunner {
  readonly machine: Machine;
  private readonly options: RunnerOptions;
  private readonly clock: MachineClock;
  private readonly output: OutputBatches;
  /** Input that a device had no room for, by channel. */
  private readonly held: Uint8Array[] = Array.from({ length: CHANNEL.COUNT }, () => new Uint8Array(0));
  /** Channels whose devices have said that they have room again, one bit each. */
  private room = 0;
  private bell = 0;
  private started = false;
  private paused = false;
  private exit: ExitRecord | undefined;
  private readonly profile: Profile | undefined;
  /** Where virtual time catches up. */
  private readonly lostTime: LostTime | undefined;
  private readonly traced: (line: string) => void;

  /** Builds the machine and loads its kernel; throws a SkepError where that cannot be. */
  constructor(options: RunnerOptions) {
    const { config, host } = options;
    this.options = options;
    const { seed } = config;
    const hostClock = new HostClock(host.now);
    this.clock = seed === undefined ? hostClock : new InstructionClock();
    this.output = new OutputBatches(options.post, host.now);
    const profile = config.profile ? new Profile() : undefined;
    this.profile = profile;
    if (config.clock === "catch-up") this.lostTime = new LostTime(host);
    this.traced = (line: string): void => this.output.bytes(CHANNEL.TRACE, encoder.encode(`${line}\n`));
    this.machine = new Machine({
      config,
      host: seed === undefined ? host : new SeededHost(host, seed),
      translator: options.translator,
      checker: options.checker,
      sample: profile === undefined ? undefined : ({ engine }) => profile.sample(engine.get(RIP) as bigint),
      disks: options.disks,
      clock: this.clock,
      threads: config.threads === "one" ? undefined : this.groupThreads(hostClock),
      trace: traceTo(config.trace as TraceKind[], this.traced),
      onSerial: (port, byte) => this.output.byte(CHANNEL.SERIAL + port, byte),
      onConsole: (bytes) => this.output.bytes(CHANNEL.CONSOLE, bytes),
      onRoom: (port) => {
        this.room |= 1 << (port === VIRTIO_CONSOLE ? CHANNEL.CONSOLE : CHANNEL.SERIAL + port);
      },
    });
    if (options.snapshot === undefined) this.machine.boot(options.kernel());
    else this.restore(options.snapshot);
  }

  private groupThreads(clock: HostClock): GroupThreads {
    const { host, mailbox, mailboxMemory, post } = this.options;
    return {
      clock,
      mailbox,
      mailboxMemory,
      engineModule: host.engineModule,
      spawn: (parts) => post({ type: "spawn", parts }),
    };
  }

  /** Runs until the guest ends or a stop is asked for. */
  run(): void {
    const { mailbox } = this.options;
    this.options.post({ type: "ready" });
    while (this.exit === undefined) {
      this.bell = mailbox.bell();
      this.readMailbox();
      if (this.exit !== undefined) break;
      if (!this.started || this.paused || this.output.blocked(mailbox.consumed())) {
        this.output.flush();
        mailbox.wait(this.bell, Number.POSITIVE_INFINITY);
      } else this.execute();
    }
    this.machine.halt();
    this.tellProfile();
    this.output.flush();
    this.clock.stop();
    const statistics = this.machine.statistics();
    this.machine.end();
    this.options.post({ type: "exit", exit: this.exit, statistics });
  }

  private tellProfile(): void {
    const { profile, machine, options } = this;
    if (profile === undefined) return;
    const { symbols } = options.config;
    const { memory } = machine.pc;
    const known = parseSymbols(symbols ?? options.kernel().bytes);
    const found =
      known.length > 0 || symbols !== undefined
        ? known
        : kernelSymbols(new Uint8Array(memory.memory.buffer, 0, memory.bytes));
    for (const line of profile.report(found ?? [])) this.traced(`profile: ${line}`);
  }

  private execute(): void {
    const { mailbox } = this.options;
    if (this.lostTime?.due) this.catchUpWithHost(this.lostTime);
    const outcome = this.machine.run(() => {
      this.output.flushIfDue();
      this.offerWhereRoom();
      return mailbox.bell() !== this.bell || this.lostTime?.due === true;
    });
    if (outcome.kind === "exit") this.exit = exitRecord(outcome.exit);
    else if (outcome.kind === "idle") {
      // Processors on other threads may go on writing: what they write is still collected.
      if (this.machine.pc.processors.parallel) this.output.flushIfDue();
      else this.output.flush();
      if (this.room !== 0) {
        this.offerWhereRoom();
        return;
      }
      const longest = this.lostTime === undefined ? Number.POSITIVE_INFINITY : LOOK_EVERY_NS / 1e6;
      const milliseconds = Math.min((outcome.wakeAt - this.clock.now()) / 1e6, this.output.milliseconds(), longest);
      if (milliseconds > SLEEP_MIN_MS) mailbox.wait(this.bell, milliseconds);
    }
  }

  /** Sets virtual time forward by what the host slept. */
  private catchUpWithHost(lostTime: LostTime): void {
    const ns = lostTime.slept();
    if (ns === 0) return;
    this.machine.halt();
    this.clock.stop();
    this.clock.setTime(this.clock.now() + ns);
    this.clock.start();
    this.machine.begin();
  }

  private readMailbox(): void {
    for (let message = this.options.mailbox.take(); message !== undefined; message = this.options.mailbox.take()) {
      if (message.kind === MESSAGE.INPUT) this.input(message.payload[0], message.payload.subarray(1));
      else {
        const { command, id, request } = JSON.parse(decoder.decode(message.payload)) as CommandMessage;
        try {
          this.obey(command, id, request);
        } catch (error) {
          const { code, message: text } = asSkepError(error);
          this.options.post({ type: "refused", id, code, message: text });
        }
      }
    }
  }

  private obey(command: Command, id: number, request: ControlRequest | undefined): void {
    const { machine, clock } = this;
    switch (command) {
      case "start":
      case "resume":
        if (this.paused && this.lostTime !== undefined) clock.setTime(clock.now() + this.lostTime.paused());
        this.lostTime?.mark();
        this.started = true;
        this.paused = false;
        clock.start();
        machine.begin();
        break;
      case "pause":
        this.paused = true;
        machine.halt();
        clock.stop();
        this.lostTime?.mark();
        break;
      case "reset":
        machine.halt();
        machine.reset();
        machine.boot(this.options.kernel());
        if (this.started && !this.paused) machine.begin();
        break;
      case "power-button":
        machine.pc.acpi.pressPowerButton();
        break;
      case "stop":
        this.exit = STOPPED;
        break;
      case "statistics":
        this.options.post({ type: "reply", id, statistics: machine.statistics() });
        return;
      case "snapshot":
        this.output.flush();
        this.options.post({ type: "reply", id, snapshot: this.snapshot() });
        return;
      case "control": {
        if (request === undefined) throw new SkepError("internal", "a control command without a request");
        const state = !this.started ? "created" : this.paused ? "paused" : "running";
        this.options.post({ type: "reply", id, answer: answerControl(machine.pc, request, state) });
        return;
      }
    }
    this.output.flush();
    this.options.post({ type: "reply", id });
  }

  // ---- Snapshots ----

  private snapshot(): Snapshot {
    if (this.started && !this.paused) throw new SkepError("state", "a snapshot is taken while the machine is paused");
    const snapshot = saveSnapshot(this.machine);
    // A machine that goes on from here would not come to its end again.
    if (this.machine.pc.vm.ended !== undefined) throw new SkepError("state", "the guest has just ended the machine");
    return snapshot;
  }

  private restore(snapshot: Snapshot): void {
    try {
      restoreSnapshot(this.machine, snapshot);
    } catch (error) {
      if (error instanceof StateError) throw new SkepError("config", error.message, { cause: error });
      throw error;
    }
  }

  // ---- Input ----

  private input(channel: number, bytes: Uint8Array): void {
    const before = this.held[channel];
    if (before === undefined) return;
    const joined = new Uint8Array(before.length + bytes.length);
    joined.set(before);
    joined.set(bytes, before.length);
    this.held[channel] = joined;
    this.offerHeld(channel);
  }

  /** Gives a device as much of its input as it takes; the sender is told, and sends no more than the device is ready for. */
  private offerHeld(channel: number): void {
    const held = this.held[channel];
    if (held === undefined || held.length === 0) return;
    const { serial, console } = this.machine.pc;
    const device = channel === CHANNEL.CONSOLE ? console : serial[channel - CHANNEL.SERIAL];
    // A port that the machine does not have swallows what is typed into it.
    const bytes = device === undefined ? held.length : device.receive(held);
    if (bytes === 0) return;
    this.held[channel] = held.subarray(bytes);
    this.options.post({ type: "taken", channel, bytes });
  }

  /** Devices say that they have room while they are at work, and can take no input before they are done. */
  private offerWhereRoom(): void {
    if (this.room === 0) return;
    const { room } = this;
    this.room = 0;
    for (let channel = 0; channel < CHANNEL.COUNT; channel++) if ((room >> channel) & 1) this.offerHeld(channel);
  }
}

/** Any error as one that users can be shown; what is no SkepError is a fault of skep. */
export function asSkepError(error: unknown): SkepError {
  if (error instanceof SkepError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new SkepError("internal", `internal error: ${message}`, { cause: error });
}
