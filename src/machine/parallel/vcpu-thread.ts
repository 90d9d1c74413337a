// A thread that runs one vCPU: its engine, its local APIC, its timers. It executes guest code, sleeps while the vCPU is halted, stands still
// while the machine does, and answers the calls of the machine's thread. It never returns to an event loop before the machine's end.

import type { InitialCpuState } from "../../boot/cpu-state.ts";
import { type EngineOptions, ramMemoryBytes } from "../../cpu/engine.ts";
import { apicIdOf } from "../../cpu/topology.ts";
import { SkepError } from "../../errors.ts";
import type { Host } from "../../host/host.ts";
import { MailboxBell } from "../../host/mailbox.ts";
import { Anomalies } from "../../vmm/anomalies.ts";
import { HostClock, TimerQueue } from "../../vmm/clock.ts";
import { InterruptRouter } from "../../vmm/io/interrupt-router.ts";
import { GuestRam } from "../../vmm/memory.ts";
import {
  ControlArea,
  type Doorbell,
  ENDED,
  GLOBAL,
  PHASE,
  REQUEST,
  RUN_STATE,
  VCPU,
} from "../../vmm/parallel/control-area.ts";
import { ExitChannel } from "../../vmm/parallel/exit-channel.ts";
import { HaltPoll } from "../../vmm/parallel/halt-poll.ts";
import { PostedInterrupts, RemoteApic } from "../../vmm/parallel/remote-apic.ts";
import { SharedCode } from "../../vmm/parallel/shared-code.ts";
import { spinPause } from "../../vmm/parallel/spin.ts";
import { answerCall, CALL } from "../../vmm/parallel/vcpu-call.ts";
import type { VcpuLink } from "../../vmm/parallel/vcpu-link.ts";
import { type TraceKind, traceTo } from "../../vmm/trace.ts";
import type { PostedRequests, Vcpu } from "../../vmm/vcpu.ts";
import { Vm } from "../../vmm/vm.ts";
import type { MachineConfig } from "../config.ts";
import { setInitialState } from "../initial-state.ts";
import { handOver, makeVcpu } from "../make-vcpu.ts";
import { OutputBatches } from "../output.ts";
import { restoreVcpu, saveVcpu } from "../processors.ts";
import { CHANNEL, type FromMachine, type VcpuThreadParts } from "../protocol.ts";
import { vcpuStatistics } from "../statistics.ts";
import { answerVcpu, type VcpuRequest } from "../vcpu-control.ts";
import { postedAccesses } from "../wiring.ts";
import { type ThreadAnswer, type ThreadRestore, type ThreadStatistics, vcpuLinks } from "./vcpu-links.ts";

export interface VcpuThreadOptions {
  readonly parts: VcpuThreadParts;
  readonly config: MachineConfig;
  readonly host: Omit<Host, "engineModule">;
  readonly translator: EngineOptions["translator"];
  post(message: FromMachine): void;
}

/** A sleep shorter than this is not worth the waking. */
const SLEEP_MIN_MS = 0.02;
const encoder = new TextEncoder();

export class VcpuThread {
  private readonly config: MachineConfig;
  private readonly vm: Vm;
  private readonly vcpu: Vcpu;
  private readonly area: ControlArea;
  private readonly link: VcpuLink;
  private readonly bell: Doorbell;
  private readonly now: () => number;
  private readonly clock: HostClock;
  private readonly output: OutputBatches;
  private readonly anomalies: Anomalies;
  private readonly exits: ExitChannel;
  private readonly code: SharedCode;
  private readonly interrupts: PostedInterrupts;
  private readonly haltPoll: HaltPoll;
  private readonly idle = { ns: 0, count: 0 };

  constructor(options: VcpuThreadOptions) {
    const { parts, config, post } = options;
    this.config = config;
    this.haltPoll = config.without.includes("halt-polling") ? new HaltPoll(0) : new HaltPoll();
    const host: Host = { ...options.host, engineModule: parts.engineModule };
    this.area = new ControlArea(parts.control);
    this.bell = new MailboxBell(parts.mailbox);
    const links = vcpuLinks(this.area, parts.memories, this.bell);
    this.link = links[parts.id];
    this.now = host.now;
    this.clock = new HostClock(host.now);
    this.output = new OutputBatches(post, host.now);
    const traced = (line: string): void => this.output.bytes(CHANNEL.TRACE, encoder.encode(`${line}\n`));
    const trace = traceTo(config.trace as TraceKind[], traced);
    this.anomalies = new Anomalies(trace.anomalies);
    const timers = new TimerQueue(this.clock);
    this.exits = new ExitChannel(this.area, this.link, this.bell, postedAccesses(config), () => this.clock.now());
    const router = new InterruptRouter(() => this.area.apicGeneration);
    this.interrupts = new PostedInterrupts(
      this.link,
      () => this.vcpu.apic,
      (vector) => this.exits.endOfInterrupt(vector),
    );
    const others = links.filter((link) => link !== this.link);
    this.code = new SharedCode(this.link, others, () => this.vcpu.engine);
    this.vm = new Vm({ clock: this.clock, timers, router, trace, haltIsEnd: false });
    this.vcpu = makeVcpu(parts.id, {
      config,
      host,
      clock: this.clock,
      timers,
      trace,
      io: this.exits,
      anomalies: this.anomalies,
      acknowledgePic: () => this.exits.acknowledge(),
      code: this.code,
      memory: new GuestRam({
        bytes: config.memoryBytes,
        memoryBytes: ramMemoryBytes(config.memoryBytes),
        log: this.anomalies,
        memory: parts.ram,
      }),
      translator: options.translator,
      cpuMemory: parts.memories[parts.id],
      sharesThread: false,
      posted: this.postedRequests(),
      bus: {
        sendIpi: (source, shorthand, message) => router.sendIpi(source, shorthand, message),
        endOfInterrupt: (vector) => this.exits.endOfInterrupt(vector),
        watchedVector: () => Atomics.load(this.area.words, GLOBAL.WATCHED_VECTOR),
        watchedServed: (vector) => this.exits.watchedServed(vector),
        identityChanged: () => this.identityChanged(),
        acceptanceChanged: () => {
          this.identityChanged();
          this.exits.retry();
        },
      },
    });
    for (const link of links) {
      if (link === this.link) this.vm.addVcpu(this.vcpu);
      else router.addLocalApic(new RemoteApic(link, apicIdOf(config.topology, link.id)));
    }
    this.vcpu.startTsc(parts.resetAt);
    handOver(this.vcpu.apic, config, parts.id === 0);
    this.interrupts.publishIdentity();
  }

  /** Runs the vCPU until the machine's end. */
  run(): void {
    const { area, link } = this;
    let stopped = true;
    for (;;) {
      link.enter(RUN_STATE.LOOKING);
      const { orders } = link;
      if (answerCall(link, (call, argument) => this.answer(call, argument))) this.bell.ring();
      const { phase } = area;
      if (phase === PHASE.END) break;
      if (phase === PHASE.PARK || this.vm.ended !== undefined) {
        this.clock.stop();
        stopped = true;
        this.output.flush();
        link.park(orders);
        continue;
      }
      if (stopped) this.clock.follow(area.clock);
      stopped = false;
      this.execute(orders);
    }
    this.output.flush();
    link.enter(RUN_STATE.GONE);
    this.bell.ring();
  }

  private execute(orders: number): void {
    const { link, vm, clock } = this;
    const outcome = vm.run(() => {
      this.exits.flushIfDue(this.now);
      this.output.flushIfDue();
      return link.orders !== orders;
    });
    this.exits.flush();
    if (outcome.kind === "exit") {
      // The one end that a vCPU alone can make.
      Atomics.store(link.words, GLOBAL.ENDED, ENDED.TRIPLE_FAULT);
      this.bell.ring();
    } else if (outcome.kind === "idle") {
      this.output.flush();
      // What an order posted may have been taken while the vCPU looked for events, and would not wake it.
      if (link.orders !== orders) return;
      const before = clock.now();
      this.sleep(before, outcome.wakeAt);
      const ns = clock.now() - before;
      this.haltPoll.lasted(ns);
      this.idle.ns += ns;
      this.idle.count++;
    }
  }

  private sleep(now: number, wakeAt: number): void {
    const { link, clock, haltPoll } = this;
    const { deaf } = this.vcpu;
    if (!deaf) {
      const lookoutEnd = Math.min(now + haltPoll.lookout, wakeAt);
      for (let at = now; at < lookoutEnd; at = clock.now()) {
        if (link.requested) return;
        spinPause();
      }
    }
    const milliseconds = (wakeAt - clock.now()) / 1e6;
    if (milliseconds > SLEEP_MIN_MS) link.sleep(milliseconds, deaf);
  }

  private postedRequests(): PostedRequests {
    const { link } = this;
    return {
      requested: () => link.requested,
      take: () => {
        link.enter(RUN_STATE.RUNNING);
        const requests = link.takeRequests();
        if (requests !== 0) this.take(requests);
      },
      running: (running) => this.interrupts.running(running),
    };
  }

  private take(requests: number): void {
    if (requests & REQUEST.CODE) this.code.take();
    this.interrupts.take(requests);
  }

  private identityChanged(): void {
    // The local APIC says so first while it is being made.
    if (this.vcpu !== undefined) this.interrupts.publishIdentity();
  }

  // ---- Calls of the machine's thread ----

  private answer(call: number, argument: unknown): unknown {
    const { vcpu } = this;
    // What was posted before a call is part of the state that it is about: interrupts of the local APIC's, code that was changed of the memory's.
    this.take(this.link.takeRequests());
    switch (call) {
      case CALL.RESET:
        this.reset(argument as number);
        return undefined;
      case CALL.BOOT:
        setInitialState(vcpu.engine, argument as InitialCpuState);
        return undefined;
      case CALL.STATISTICS:
        return this.statistics();
      case CALL.CONTROL:
        return this.control(argument as VcpuRequest);
      case CALL.SAVE:
        return saveVcpu(vcpu);
      case CALL.RESTORE:
        this.restore(argument as ThreadRestore);
        return undefined;
      default:
        throw new Error(`there is no call ${call}`);
    }
  }

  /** At a virtual time that is the same for all vCPUs. */
  private reset(at: number): void {
    this.exits.forget();
    // Interrupts that were on their way come to nothing; pins keep their levels.
    this.vm.reset(at);
    handOver(this.vcpu.apic, this.config, this.vcpu.id === 0);
    this.interrupts.publishIdentity();
  }

  private restore({ sections, time }: ThreadRestore): void {
    this.exits.forget();
    this.vm.reset();
    this.clock.setTime(time);
    restoreVcpu(this.vcpu, sections);
    this.interrupts.restored();
  }

  private control(request: VcpuRequest): ThreadAnswer {
    try {
      return { answer: answerVcpu(this.vcpu, request) };
    } catch (error) {
      if (error instanceof SkepError) return { refused: error.message, code: error.code };
      throw error;
    }
  }

  private statistics(): ThreadStatistics {
    const { vm, exits, code, idle } = this;
    const own = vcpuStatistics(this.vcpu);
    const received = this.link.load(VCPU.IPIS_RECEIVED);
    return {
      vcpu: {
        ...own,
        interrupts: { ...own.interrupts, ipisReceived: own.interrupts.ipisReceived + received },
        thread: {
          idleNs: idle.ns,
          idles: idle.count,
          timerLateMaxNs: vm.statistics.timerLateMaxNs,
          exits: exits.statistics.exits,
          exitsSlept: exits.statistics.slept,
          writesPosted: exits.statistics.posted,
          ...code.statistics,
        },
      },
      anomalies: this.anomalies.statistics(),
    };
  }
}
