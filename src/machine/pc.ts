// Puts a PC together: the core, interrupt controllers and timers, legacy devices, the PCI bus with virtio devices on it. The only place that
// names all of them. It knows nothing of kernels and of the host's threads.

import { type EngineOptions, ramMemoryBytes } from "../cpu/engine.ts";
import { EXTENDED_DESTINATIONS } from "../cpu/model.ts";
import { AcpiPm } from "../devices/acpi-pm.ts";
import { DebugExit } from "../devices/debug-exit.ts";
import { I8042 } from "../devices/i8042.ts";
import { assignBars } from "../devices/pci/assign-bars.ts";
import { CONFIG_TARGETS, PciHost } from "../devices/pci/host.ts";
import { Port92 } from "../devices/port92.ts";
import { ResetControl } from "../devices/reset-control.ts";
import { Uart16550 } from "../devices/uart16550.ts";
import { VirtioBlock } from "../devices/virtio/block.ts";
import { VirtioConsole } from "../devices/virtio/console.ts";
import type { VirtioDevice } from "../devices/virtio/device.ts";
import { VirtioEntropy } from "../devices/virtio/entropy.ts";
import { VirtioPci } from "../devices/virtio/pci-transport.ts";
import { SkepError } from "../errors.ts";
import { type FirmwareConfig, PCI_GSI_BASE, PM_LAYOUT } from "../firmware/config.ts";
import type { Host } from "../host/host.ts";
import { Anomalies } from "../vmm/anomalies.ts";
import type { InterruptPin } from "../vmm/bus.ts";
import { type Clock, TimerQueue } from "../vmm/clock.ts";
import type { Engine, EngineHost } from "../vmm/engine.ts";
import { HPET_BANKS, HPET_LENGTH, Hpet } from "../vmm/io/hpet.ts";
import { InterruptRouter } from "../vmm/io/interrupt-router.ts";
import { IoApic } from "../vmm/io/ioapic.ts";
import { Lvt } from "../vmm/io/lapic-registers.ts";
import { MsiReceiver } from "../vmm/io/msi.ts";
import { PIC_PORTS, Pic } from "../vmm/io/pic.ts";
import { PIT_PORTS, Pit } from "../vmm/io/pit.ts";
import { PmTimer } from "../vmm/io/pmtimer.ts";
import { RTC_PORTS, Rtc } from "../vmm/io/rtc.ts";
import { IoBus } from "../vmm/io-space.ts";
import { GuestMemoryError, GuestRam, HOLE_BASE } from "../vmm/memory.ts";
import type { Stateful } from "../vmm/state.ts";
import type { Trace } from "../vmm/trace.ts";
import { Vm, type VmOptions } from "../vmm/vm.ts";
import { DISKS_MAX, type DiskConfig, type MachineConfig } from "./config.ts";
import { makeVcpu, type VcpuMaking } from "./make-vcpu.ts";
import { VcpuGroup, type VcpuGroupOptions } from "./parallel/vcpu-group.ts";
import { LocalProcessors, type Processors } from "./processors.ts";
import { SeededHost, type SeededRandom } from "./seeded-host.ts";
import {
  CASCADE_IRQ,
  ECAM,
  ELCR_HIGH,
  HPET_BASE,
  HPET_PINS,
  IOAPIC,
  IOAPIC_TIMER_PIN,
  IRQ,
  ISA_IRQS,
  KNOWN_PORT,
  PCI_PIC_IRQS,
  PCI_SLOT,
  PCI_WINDOWS,
  PM_BASE,
  REGISTER_BANK,
  SERIAL_PORTS,
} from "./wiring.ts";

export interface PcOptions {
  readonly config: MachineConfig;
  readonly disks: readonly DiskConfig[];
  readonly clock: Clock;
  readonly host: Host;
  readonly trace: Trace;
  /** A byte that the guest wrote to a serial port, by the port's position. */
  onSerial(port: number, byte: number): void;
  onConsole(bytes: Uint8Array): void;
  /** A serial port (by position) or the virtio console (-1) that took less than it was given has room again. */
  onRoom(port: number): void;
  /** Makes the translators of machines that translate (src/cpu/translator/standard-translator.ts). */
  readonly translator?: EngineOptions["translator"];
  /** Makes what checks a vCPU's translated code, where the configuration asks for it. */
  readonly checker?: VcpuMaking["checker"];
  readonly sample?: VmOptions["sample"];
  /** Instead of the engine that the configuration names; for tests of what is around it. */
  createEngine?(host: EngineHost, memory: GuestRam, apicId: number): Engine;
  /** Each vCPU gets a thread of its own; without this they all run on the present one. */
  readonly threads?: VcpuGroupOptions["threads"] | undefined;
}

export const VIRTIO_CONSOLE = -1;

/** A part of the machine with state, by the name that it has in snapshots. */
export type NamedParts = ReadonlyMap<string, Stateful>;

export class Pc {
  readonly vm: Vm;
  readonly processors: Processors;
  readonly memory: GuestRam;
  readonly io: IoBus;
  readonly anomalies: Anomalies;
  readonly timers: TimerQueue;
  readonly router = new InterruptRouter();
  readonly ioapic: IoApic;
  readonly pic: Pic;
  readonly pit: Pit;
  readonly hpet: Hpet;
  readonly rtc: Rtc;
  readonly pmTimer: PmTimer;
  readonly acpi: AcpiPm;
  readonly keyboard: I8042;
  readonly port92: Port92;
  readonly resetControl: ResetControl;
  readonly serial: readonly Uart16550[];
  readonly pci: PciHost;
  readonly entropy: VirtioPci;
  readonly console: VirtioConsole;
  readonly consolePci: VirtioPci;
  readonly disks: readonly VirtioPci[];
  /** What whoever owns the machine asserts of the ISA interrupt lines, by IRQ; undefined where there is no such line. */
  readonly isaLines: readonly (InterruptPin | undefined)[];
  readonly config: MachineConfig;

  /** Where a deterministic machine has its random numbers from. */
  private readonly random: SeededRandom | undefined;

  constructor(options: PcOptions) {
    const { config, clock, host, trace } = options;
    this.random = host instanceof SeededHost ? host.random : undefined;
    this.config = config;
    this.anomalies = new Anomalies(trace.anomalies);
    this.timers = new TimerQueue(clock);
    this.io = new IoBus(this.anomalies);
    this.io.portTrace = trace.ports;
    this.io.mmioTrace = trace.mmio;
    this.memory = this.makeMemory();
    const { threads } = options;
    this.vm = new Vm({
      clock,
      timers: this.timers,
      router: this.router,
      trace,
      haltIsEnd: threads === undefined && config.onHalt === "end",
      sample: options.sample,
    });
    const { io, timers, anomalies, router, vm } = this;

    // IRQ 0 is the 8254's, or in its place the HPET's: the other of them has nothing outstanding.
    const timerWatch = {
      served: () => {
        this.pit.ticks.acknowledged();
        this.hpet.ticks.acknowledged();
      },
      rerouted: () => {
        this.pit.ticks.forget();
        this.hpet.ticks.forget();
      },
    };
    const extendedDestinationIds = config.cpu.features.has(EXTENDED_DESTINATIONS);
    this.pic = new Pic({
      anomalies,
      timerWatch,
      intr: (asserted) => router.setLint(0, asserted),
      onMask: (chip, value) => this.processors.portReads(KNOWN_PORT.imr + chip, value),
    });
    this.ioapic = new IoApic({
      bus: router,
      anomalies,
      id: IOAPIC.id,
      trace: trace.interrupts,
      extendedDestinationIds,
      watch: { pin: IOAPIC_TIMER_PIN, ...timerWatch },
    });
    router.addIoApic(this.ioapic);
    this.processors = threads === undefined ? this.addVcpus(options) : this.groupVcpus(options, threads);

    io.mapPorts("pic", PIC_PORTS.master, 2, this.pic);
    io.mapPorts("pic", PIC_PORTS.slave, 2, this.pic);
    io.mapPorts("pic", PIC_PORTS.elcr, 2, this.pic);
    io.mapMmio("ioapic", IOAPIC.base, IOAPIC.length, this.ioapic);

    const nmi = (): void => {
      if (!this.rtc.nmiMasked) router.triggerLocal(Lvt.LINT1);
    };
    this.pit = new Pit({ clock, timers, anomalies, nmi, pin: this.isaPin(IRQ.TIMER, "pit") });
    io.mapPorts("pit", PIT_PORTS.counters, 4, this.pit);
    io.mapPorts("nmi-status", PIT_PORTS.nmiStatus, 1, this.pit);
    this.rtc = new Rtc({
      clock,
      timers,
      anomalies,
      pin: this.isaPin(IRQ.RTC, "rtc"),
      wallClockAtZero: host.wallClock() - clock.now() / 1e6,
    });
    io.mapPorts("rtc", RTC_PORTS.index, 2, this.rtc);
    const msi = new MsiReceiver({ bus: router, anomalies, extendedDestinationIds });
    this.hpet = this.makeHpet(clock, msi);
    if (config.without.includes("owed-ticks")) for (const { ticks } of [this.pit, this.hpet]) ticks.limit = 1;
    io.mapMmio("hpet", HPET_BASE, HPET_LENGTH, this.hpet);

    this.pmTimer = new PmTimer({
      clock,
      timers,
      anomalies,
      port: PM_BASE + PM_LAYOUT.PM_TMR.offset,
      bits: 32,
      carried: () => this.acpi.timerCarry(),
    });
    io.mapPorts("pm-timer", PM_BASE + PM_LAYOUT.PM_TMR.offset, PM_LAYOUT.PM_TMR.length, this.pmTimer);
    this.acpi = new AcpiPm({
      io,
      log: anomalies,
      base: PM_BASE,
      sci: this.isaPin(IRQ.SCI, "acpi"),
      timer: this.pmTimer,
      onPowerOff: () => vm.end({ reason: "power-off" }),
      onEnable: (value) => this.processors.portReads(KNOWN_PORT.pm1Enable, value),
    });

    // The processors alone (ICH9 data sheet, "INIT# (Initialization)").
    const onInit = (): void => router.assertInit();
    const onReset = (hard: boolean): void => (hard ? vm.end({ reason: "reset" }) : onInit());
    // Address line 20 is always let through, as on PCs without the gate; guests read back what they set.
    const onA20 = (): void => {};
    this.resetControl = new ResetControl({ onReset });
    this.port92 = new Port92({ io, onA20, onInit });
    this.keyboard = new I8042({ io, onA20, onInit, interrupt: this.isaPin(IRQ.KEYBOARD, "i8042") });
    this.serial = SERIAL_PORTS.slice(0, config.serialPorts).map(
      ({ name, port, irq }, position) =>
        new Uart16550({
          name,
          port,
          io,
          timers,
          interrupt: this.isaPin(irq, name),
          onOutput: (byte) => options.onSerial(position, byte),
          onRoom: () => options.onRoom(position),
          onStatus: (usual) => this.processors.portIsUsual(position, usual),
          onInterruptEnable: (value) => this.processors.portReads(KNOWN_PORT.ier + position, value),
          onLineStatus: (value) => this.processors.portReads(KNOWN_PORT.lsr + position, value),
        }),
    );
    if (config.debugExitPort !== undefined) {
      const onExit = (status: number): void => vm.end({ reason: "debug-exit", status });
      new DebugExit({ io, port: config.debugExitPort, onExit });
    }

    const intx = PCI_PIC_IRQS.map((irq, line) =>
      this.sharedPin(this.pic.pin(irq), this.ioapic.pin(PCI_GSI_BASE + line, "pci")),
    );
    this.pci = new PciHost({
      io,
      msi,
      log: anomalies,
      intx,
      ecam: ECAM,
      windows: PCI_WINDOWS,
      port0cf9: this.resetControl,
    });
    this.entropy = this.addVirtio(
      "virtio-entropy",
      PCI_SLOT.ENTROPY,
      new VirtioEntropy({ fill: (bytes) => host.randomFill(bytes) }),
    );
    this.console = new VirtioConsole({
      onOutput: (bytes) => options.onConsole(bytes),
      onRoom: () => options.onRoom(VIRTIO_CONSOLE),
    });
    this.consolePci = this.addVirtio("virtio-console", PCI_SLOT.CONSOLE, this.console);
    if (options.disks.length > DISKS_MAX)
      throw new SkepError(
        "config",
        `${options.disks.length} disks are more than the ${DISKS_MAX} that a machine can have`,
      );
    this.disks = options.disks.map((disk, n) =>
      this.addVirtio(`virtio-block${n}`, PCI_SLOT.FIRST_DISK + n, new VirtioBlock(disk)),
    );
    this.keepRegisters();
    this.isaLines = Array.from({ length: ISA_IRQS }, (_, irq) =>
      irq === CASCADE_IRQ ? undefined : this.isaPin(irq, "owner"),
    );
    this.firmwareSetup();
  }

  /** In banks, where there are any. */
  private keepRegisters(): void {
    const ioapic = this.processors.registerBank(REGISTER_BANK.ioapic);
    if (ioapic !== undefined) this.ioapic.keepEntries(ioapic);
    const rtc = this.processors.registerBank(REGISTER_BANK.rtc);
    if (rtc !== undefined) this.rtc.keepRegisters(rtc);
    const hpet = Array.from({ length: HPET_BANKS }, (_, n) => this.processors.registerBank(REGISTER_BANK.hpet + n));
    this.hpet.keepRegisters(hpet.filter((bank) => bank !== undefined));
    for (let target = 0; target < CONFIG_TARGETS; target++) {
      const config = this.processors.registerBank(REGISTER_BANK.pci + target);
      if (config !== undefined) this.pci.keepConfig(target, config);
    }
  }

  /** Everything as after power-on, but for RAM and time. */
  reset(): void {
    this.processors.reset();
    for (const line of this.isaLines) line?.set(false);
    const { pic, ioapic, pit, hpet, rtc, pmTimer, acpi, keyboard, port92, resetControl, pci } = this;
    for (const device of [pic, ioapic, pit, hpet, rtc, pmTimer, acpi, keyboard, port92, resetControl, pci])
      device.reset();
    for (const device of [...this.serial, this.entropy, this.consolePci, ...this.disks]) device.reset();
    this.firmwareSetup();
  }

  /** What the firmware tables are to say of this machine. */
  firmwareConfig(): FirmwareConfig {
    const { port, irq } = SERIAL_PORTS[0];
    const { apicIds } = this.processors;
    const { cores, threads } = this.config.topology;
    return {
      memoryBytes: this.config.memoryBytes,
      cpus: apicIds,
      domains: apicIds.map((_, n) => Math.floor(n / (cores * threads))),
      ioapic: { id: IOAPIC.id, base: IOAPIC.base, gsiBase: IOAPIC.gsiBase },
      hpetBase: HPET_BASE,
      hpetId: this.hpet.readMmio(0, 4),
      ecamBase: ECAM.base,
      ecamBuses: ECAM.buses,
      pmBase: PM_BASE,
      pmTimerBits: 32,
      sciIrq: IRQ.SCI,
      smiCommand: 0,
      pciWindow32: PCI_WINDOWS.memory32,
      pciWindow64: PCI_WINDOWS.memory64,
      com1: { port, irq },
    };
  }

  /** All parts with state that are no vCPU, in the order in which they are restored: pins before what they drive. */
  parts(): NamedParts {
    const parts: [string, Stateful][] = [
      ["interrupt-router", this.router],
      ["pic", this.pic],
      ["ioapic", this.ioapic],
      ["pit", this.pit],
      ["hpet", this.hpet],
      ["rtc", this.rtc],
      ["pm-timer", this.pmTimer],
      ["acpi-pm", this.acpi],
      ["i8042", this.keyboard],
      ["port92", this.port92],
      ["reset-control", this.resetControl],
      ["pci", this.pci],
      ["virtio-entropy", this.entropy],
      ["virtio-console", this.consolePci],
    ];
    this.serial.forEach((uart, n) => {
      parts.push([SERIAL_PORTS[n].name, uart]);
    });
    this.disks.forEach((disk, n) => {
      parts.push([`virtio-block${n}`, disk]);
    });
    if (this.random !== undefined) parts.push(["random", this.random]);
    return new Map(parts);
  }

  private makeMemory(): GuestRam {
    const { memoryBytes } = this.config;
    try {
      return new GuestRam({ bytes: memoryBytes, memoryBytes: ramMemoryBytes(memoryBytes), log: this.anomalies });
    } catch (error) {
      if (error instanceof GuestMemoryError) throw new SkepError("host", error.message, { cause: error });
      throw error;
    }
  }

  private addVcpus(options: PcOptions): Processors {
    const { config } = options;
    for (let id = 0; id < config.cpus; id++) {
      const vcpu = makeVcpu(id, {
        ...options,
        timers: this.timers,
        io: this.io,
        bus: this.router,
        anomalies: this.anomalies,
        acknowledgePic: () => this.pic.acknowledge(),
        code: this.memory,
        memory: this.memory,
        translator: options.translator,
        sharesThread: config.cpus > 1,
      });
      this.memory.attach(vcpu.engine);
      this.vm.addVcpu(vcpu);
    }
    return new LocalProcessors(this.vm, config);
  }

  private groupVcpus(options: PcOptions, threads: VcpuGroupOptions["threads"]): Processors {
    const { vm, router, memory, io, pic, ioapic } = this;
    const group = new VcpuGroup({
      config: options.config,
      host: options.host,
      vm,
      router,
      memory,
      threads,
      watchedVector: () => ioapic.watchedVector(),
      server: {
        io,
        acknowledge: () => pic.acknowledge(),
        endOfInterrupt: (vector) => ioapic.endOfInterrupt(vector),
        watchedServed: (vector) => ioapic.watchedServed(vector),
        retry: () => ioapic.retry(),
      },
    });
    memory.attach(group);
    return group;
  }

  private makeHpet(clock: Clock, msi: MsiReceiver): Hpet {
    const pins: (InterruptPin | undefined)[] = [];
    for (const pin of HPET_PINS) pins[pin] = this.ioapic.pin(pin, "hpet");
    return new Hpet({
      clock,
      timers: this.timers,
      anomalies: this.anomalies,
      pins,
      msi,
      legacyPins: [this.isaPin(IRQ.TIMER, "hpet"), this.isaPin(IRQ.RTC, "hpet")],
      legacyReplacement: (active) => {
        this.pit.setInterruptConnected(!active);
        this.rtc.setInterruptConnected(!active);
      },
    });
  }

  private addVirtio(name: string, slot: number, device: VirtioDevice): VirtioPci {
    const { memory, timers, anomalies } = this;
    const transport = new VirtioPci({ name, device, memory, timers, log: anomalies });
    this.pci.add(slot, 0, transport.pci);
    return transport;
  }

  /** An ISA interrupt line, at both interrupt controllers. */
  private isaPin(irq: number, name: string): InterruptPin {
    const input = irq === IRQ.TIMER ? IOAPIC_TIMER_PIN : irq;
    return this.sharedPin(this.pic.pin(irq), this.ioapic.pin(input, name));
  }

  private sharedPin(first: InterruptPin, second: InterruptPin): InterruptPin {
    return {
      set: (asserted) => {
        first.set(asserted);
        second.set(asserted);
      },
    };
  }

  /**
   * What a BIOS does to the hardware outside processors before it starts an operating system: level-triggered PCI interrupts at the 8259s, addresses for PCI BARs, memory sizes in the CMOS RAM.
   */
  private firmwareSetup(): void {
    this.pic.writePort(PIC_PORTS.elcr + 1, 1, ELCR_HIGH);
    assignBars(this.pci, PCI_PIC_IRQS);
    const { memoryBytes } = this.config;
    this.rtc.setMemorySize(Math.min(memoryBytes, HOLE_BASE), Math.max(0, memoryBytes - HOLE_BASE));
  }
}
