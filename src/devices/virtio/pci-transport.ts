// Virtio over PCI, without the legacy interface: VIRTIO 1.2, 4.1. Holds what all device types share: status and feature negotiation (2.1,
// 2.2, 3.1), the queues' registers, notifications both ways, and the stop after a guest broke the protocol.

import type { AccessSize, AnomalyLog, GuestMemory, MmioHandler } from "../../vmm/bus.ts";
import type { Timer, TimerQueue } from "../../vmm/clock.ts";
import type { Schema, Stateful } from "../../vmm/state.ts";
import { PciFunction } from "../pci/function.ts";
import { CAPABILITY } from "../pci/registers.ts";
import type { VirtioDevice, VirtioHost } from "./device.ts";
import {
  CAP,
  CAP_LENGTH,
  CFG_TYPE,
  COMMON,
  COMMON_AT,
  type CommonRegister,
  FEATURE_HIGH,
  FEATURE_LOW,
  ISR,
  PCI_DEVICE_BASE,
  PCI_VENDOR,
  STATUS,
} from "./registers.ts";
import { NO_VECTOR, QUEUE_SCHEMA, Virtqueue } from "./virtqueue.ts";

export interface VirtioPciOptions {
  readonly name: string;
  readonly device: VirtioDevice;
  readonly memory: GuestMemory;
  readonly timers: TimerQueue;
  readonly log: AnomalyLog;
}

/** The BAR of the virtio structures, a page each, and that of MSI-X. */
const REGISTER_BAR = { index: 4, size: 0x4000, common: 0x0000, isr: 0x1000, device: 0x2000, notify: 0x3000 } as const;
const STRUCTURE_BYTES = 0x1000;
const MSIX_BAR = { index: 1, size: 0x1000, table: 0, pending: 0x800 } as const;
const NOTIFY_MULTIPLIER = 4;
/** When a batch ended for its length, the rest is done after this much virtual time, in nanoseconds. */
const RESUME_DELAY = 1000;

export class VirtioPci implements Stateful {
  readonly schema: Schema;
  readonly pci: PciFunction;
  readonly device: VirtioDevice;
  readonly queues: Virtqueue[];
  deviceFeatureSelect = 0;
  driverFeatureSelect = 0;
  /** Low word, high word. */
  driverFeatures = new Uint32Array(2);
  configVector = NO_VECTOR;
  status = 0;
  configGeneration = 0;
  queueSelect = 0;
  isr = 0;
  /** Queues whose batch is to be continued, one bit each, and when. */
  unfinished = 0;
  resumeAt = Number.POSITIVE_INFINITY;
  private readonly name: string;
  private readonly log: AnomalyLog;
  private readonly timers: TimerQueue;
  private readonly resumeTimer: Timer;
  private readonly offered: readonly [number, number];
  private accessCapability = 0;

  constructor(options: VirtioPciOptions) {
    const { device, memory } = options;
    this.name = options.name;
    this.log = options.log;
    this.timers = options.timers;
    this.device = device;
    this.offered = [
      (device.features | FEATURE_LOW.INDIRECT_DESC | FEATURE_LOW.EVENT_IDX) >>> 0,
      FEATURE_HIGH.VERSION_1 | FEATURE_HIGH.RING_RESET,
    ];
    const host = this.makeHost();
    this.queues = device.queueSizes.map((size) => new Virtqueue(size, memory, host.fail));
    this.pci = this.makeFunction();
    device.attach(host);
    this.resumeTimer = options.timers.create(`${options.name} batch`, () => this.resume());
    this.schema = {
      kind: "virtio-pci",
      version: 1,
      fields: {
        pci: { section: this.pci.schema },
        device: { section: device.schema },
        queues: { array: { section: QUEUE_SCHEMA }, length: this.queues.length },
        deviceFeatureSelect: "u32",
        driverFeatureSelect: "u32",
        driverFeatures: "words",
        configVector: "u16",
        status: "u8",
        configGeneration: "u8",
        queueSelect: "u16",
        isr: "u8",
        unfinished: "u32",
        resumeAt: "time",
      },
      derived: ["name", "log", "timers", "resumeTimer", "offered", "accessCapability", "structures"],
    };
  }

  /** The machine's reset; the driver's is only that of the virtio part. */
  reset(): void {
    this.resetVirtio();
    this.deviceFeatureSelect = 0;
    this.driverFeatureSelect = 0;
    this.queueSelect = 0;
    this.configGeneration = 0;
    this.pci.reset();
  }

  afterRestore(): void {
    this.applyFeatures();
    if (this.resumeAt === Number.POSITIVE_INFINITY) this.resumeTimer.cancel();
    else this.resumeTimer.arm(this.resumeAt);
  }

  private makeHost(): VirtioHost {
    return {
      serve: (queue) => this.serve(queue),
      configChanged: () => {
        this.configGeneration = (this.configGeneration + 1) & 0xff;
        this.signalConfig();
      },
      negotiated: (feature) => (this.driverFeatures[0] & (1 << feature)) !== 0,
      anomaly: (what) => this.log.anomaly(this.name, what),
      fail: (what) => {
        this.log.anomaly(this.name, what);
        if ((this.status & STATUS.NEEDS_RESET) !== 0) return;
        this.status |= STATUS.NEEDS_RESET;
        this.signalConfig();
      },
    };
  }

  private makeFunction(): PciFunction {
    const { device } = this;
    const pci = new PciFunction({
      name: this.name,
      vendorId: PCI_VENDOR,
      deviceId: PCI_DEVICE_BASE + device.deviceId,
      revision: 1,
      classCode: device.pciClass,
      subsystemVendorId: PCI_VENDOR,
      subsystemId: PCI_DEVICE_BASE + device.deviceId,
      interruptPin: 1,
    });
    const addStructure = (type: number, offset: number, length: number, length32: number): number => {
      const at = pci.config.addCapability(CAPABILITY.VENDOR, length, {});
      pci.config.initialize(CAP.cap_len, length, at);
      pci.config.initialize(CAP.cfg_type, type, at);
      pci.config.initialize(CAP.bar, type === CFG_TYPE.PCI ? 0 : REGISTER_BAR.index, at);
      pci.config.initialize(CAP.offset, offset, at);
      pci.config.initialize(CAP.length, length32, at);
      return at;
    };
    const notifyBytes = this.queues.length * NOTIFY_MULTIPLIER;
    addStructure(
      CFG_TYPE.COMMON,
      REGISTER_BAR.common,
      CAP_LENGTH.plain,
      COMMON.queue_reset.offset + COMMON.queue_reset.size,
    );
    const notify = addStructure(CFG_TYPE.NOTIFY, REGISTER_BAR.notify, CAP_LENGTH.extended, notifyBytes);
    pci.config.initialize(CAP.extra, NOTIFY_MULTIPLIER, notify);
    addStructure(CFG_TYPE.ISR, REGISTER_BAR.isr, CAP_LENGTH.plain, 1);
    if (device.configLength > 0)
      addStructure(CFG_TYPE.DEVICE, REGISTER_BAR.device, CAP_LENGTH.plain, device.configLength);

    // 4.1.4.9: a window in configuration space onto the structures, for guests that can't map BARs.
    const access = addStructure(CFG_TYPE.PCI, 0, CAP_LENGTH.extended, 0);
    pci.config.define(
      {
        bar: { ...CAP.bar, writable: 0xff },
        offset: { ...CAP.offset, writable: 0xffffffff },
        length: { ...CAP.length, writable: 0xffffffff },
        data: { ...CAP.extra, writable: 0xffffffff },
      },
      access,
    );
    this.accessCapability = access;
    pci.addCapabilityHook({
      offset: access + CAP.extra.offset,
      length: CAP.extra.size,
      beforeRead: () => this.configAccess(false),
      written: () => this.configAccess(true),
    });

    const vectors = this.queues.length + 1;
    const { index: bar, table, pending } = MSIX_BAR;
    const msix = pci.addMsix(vectors, { bar, table, pending });
    pci.addBar({
      index: MSIX_BAR.index,
      kind: "memory32",
      size: MSIX_BAR.size,
      handler: {
        readMmio: (offset, size) =>
          offset < pending
            ? msix.tableRegion.readMmio(offset, size)
            : msix.pendingRegion.readMmio(offset - pending, size),
        writeMmio: (offset, size, value) => {
          if (offset < pending) msix.tableRegion.writeMmio(offset, size, value);
        },
      },
    });
    pci.addBar({ index: REGISTER_BAR.index, kind: "memory64", size: REGISTER_BAR.size, handler: this.structures });
    pci.commandChanged = () => this.serveAll();
    return pci;
  }

  private readonly structures: MmioHandler = {
    readMmio: (offset, size) => {
      const at = offset % STRUCTURE_BYTES;
      switch (offset - at) {
        case REGISTER_BAR.common:
          return this.readCommon(at, size);
        case REGISTER_BAR.isr:
          return at === 0 ? this.takeIsr() : 0;
        case REGISTER_BAR.device:
          return at < this.device.configLength ? this.device.readConfig(at, size) : 0;
        default:
          return 0;
      }
    },
    writeMmio: (offset, size, value) => {
      const at = offset % STRUCTURE_BYTES;
      switch (offset - at) {
        case REGISTER_BAR.common:
          this.writeCommon(at, size, value);
          break;
        case REGISTER_BAR.device:
          if (at < this.device.configLength) this.device.writeConfig(at, size, value);
          break;
        case REGISTER_BAR.notify:
          this.serve(Math.floor(at / NOTIFY_MULTIPLIER));
          break;
        default:
          break;
      }
    },
  };

  /** 4.1.4.9.2: an access of `length` bytes at `offset` of a BAR, through pci_cfg_data. */
  private configAccess(write: boolean): void {
    const { config } = this.pci;
    const at = this.accessCapability;
    const offset = config.get(CAP.offset, at);
    const length = config.get(CAP.length, at);
    const spec = this.pci.barSpecs.find((bar) => bar.index === config.get(CAP.bar, at));
    const sizes: readonly number[] = [1, 2, 4];
    if (spec === undefined || !sizes.includes(length) || offset % length !== 0 || offset + length > spec.size) {
      this.log.anomaly(this.name, "a configuration access that is out of range");
      return;
    }
    const size = length as AccessSize;
    if (write) spec.handler.writeMmio(offset, size, config.read(at + CAP.extra.offset, size));
    else config.set({ offset: CAP.extra.offset, size }, spec.handler.readMmio(offset, size), at);
  }

  private readCommon(offset: number, size: AccessSize): number {
    let value = 0;
    for (let i = 0; i < size; ) {
      const name = COMMON_AT[offset + i];
      if (name === undefined) break;
      const skip = offset + i - COMMON[name].offset;
      value |= (this.readRegister(name) >>> (8 * skip)) << (8 * i);
      i += COMMON[name].size - skip;
    }
    return size === 4 ? value >>> 0 : value & ((1 << (8 * size)) - 1);
  }

  private readRegister(name: CommonRegister): number {
    const queue = this.queues.at(this.queueSelect);
    switch (name) {
      case "device_feature_select":
        return this.deviceFeatureSelect;
      case "device_feature":
        return this.offered[this.deviceFeatureSelect] ?? 0;
      case "driver_feature_select":
        return this.driverFeatureSelect;
      case "driver_feature":
        return this.driverFeatures[this.driverFeatureSelect] ?? 0;
      case "config_msix_vector":
        return this.configVector;
      case "num_queues":
        return this.queues.length;
      case "device_status":
        return this.status;
      case "config_generation":
        return this.configGeneration;
      case "queue_select":
        return this.queueSelect;
      case "queue_size":
        return queue?.size ?? 0;
      case "queue_msix_vector":
        return queue?.vector ?? NO_VECTOR;
      case "queue_enable":
        return queue?.enabled ? 1 : 0;
      case "queue_notify_off":
        return queue === undefined ? 0 : this.queueSelect;
      case "queue_desc_low":
        return queue?.descriptorArea[0] ?? 0;
      case "queue_desc_high":
        return queue?.descriptorArea[1] ?? 0;
      case "queue_driver_low":
        return queue?.driverArea[0] ?? 0;
      case "queue_driver_high":
        return queue?.driverArea[1] ?? 0;
      case "queue_device_low":
        return queue?.deviceArea[0] ?? 0;
      case "queue_device_high":
        return queue?.deviceArea[1] ?? 0;
      case "queue_notify_data":
        return 0;
      case "queue_reset":
        // A queue is reset at once, so the driver never sees one in reset (4.1.4.3.1).
        return 0;
    }
  }

  /** 4.1.3.1: drivers access a field with its own width, so anything else is a mistake. */
  private writeCommon(offset: number, size: AccessSize, value: number): void {
    const name = COMMON_AT[offset];
    if (name === undefined || COMMON[name].offset !== offset || COMMON[name].size !== size) {
      this.log.anomaly(this.name, "a write to the common configuration that is no whole field");
      return;
    }
    switch (name) {
      case "device_feature_select":
        this.deviceFeatureSelect = value;
        break;
      case "driver_feature_select":
        this.driverFeatureSelect = value;
        break;
      case "driver_feature":
        if ((this.status & STATUS.FEATURES_OK) !== 0)
          this.log.anomaly(this.name, "features were written after FEATURES_OK");
        else if (this.driverFeatureSelect < 2) this.driverFeatures[this.driverFeatureSelect] = value;
        break;
      case "config_msix_vector":
        this.configVector = this.checkVector(value);
        break;
      case "device_status":
        this.writeStatus(value);
        break;
      case "queue_select":
        this.queueSelect = value;
        break;
      default:
        this.writeQueue(name, value);
    }
  }

  private writeQueue(name: CommonRegister, value: number): void {
    const queue = this.queues.at(this.queueSelect);
    if (queue === undefined) {
      this.log.anomaly(this.name, "a queue was set up that the device does not have");
      return;
    }
    if (name === "queue_msix_vector") {
      queue.vector = this.checkVector(value);
      return;
    }
    if (name === "queue_reset") {
      if (value === 1 && (this.driverFeatures[1] & FEATURE_HIGH.RING_RESET) !== 0) queue.reset();
      return;
    }
    if (queue.enabled) {
      this.log.anomaly(this.name, "a queue was changed while enabled");
      return;
    }
    switch (name) {
      case "queue_size":
        // 4.1.4.3.2: a power of two, up to the size that the device proposed.
        if (value === 0 || value > queue.maxSize || (value & (value - 1)) !== 0)
          this.log.anomaly(this.name, "a bad queue size");
        else queue.size = value;
        break;
      case "queue_enable":
        if (value === 1) queue.enable();
        break;
      case "queue_desc_low":
        queue.descriptorArea[0] = value;
        break;
      case "queue_desc_high":
        queue.descriptorArea[1] = value;
        break;
      case "queue_driver_low":
        queue.driverArea[0] = value;
        break;
      case "queue_driver_high":
        queue.driverArea[1] = value;
        break;
      case "queue_device_low":
        queue.deviceArea[0] = value;
        break;
      case "queue_device_high":
        queue.deviceArea[1] = value;
        break;
      default:
        this.log.anomaly(this.name, "a write to a read-only field");
    }
  }

  /** 4.1.5.1.2: a vector that there is not reads back as none. */
  private checkVector(value: number): number {
    return value < (this.pci.msix?.vectors ?? 0) ? value : NO_VECTOR;
  }

  private writeStatus(value: number): void {
    if (value === 0) {
      this.resetVirtio();
      return;
    }
    const before = this.status;
    if ((before & ~value & ~STATUS.NEEDS_RESET) !== 0)
      this.log.anomaly(this.name, "a status bit was cleared without a reset");
    let added = value & ~before & ~STATUS.NEEDS_RESET;
    // 3.1.1 steps 5 and 6: FEATURES_OK stays clear where the choice of features can't be accepted.
    if ((added & STATUS.FEATURES_OK) !== 0 && !this.featuresAcceptable()) {
      this.log.anomaly(this.name, "a choice of features that can't be accepted");
      added &= ~STATUS.FEATURES_OK;
    }
    this.status |= added;
    if ((added & STATUS.FEATURES_OK) !== 0) this.applyFeatures();
    if ((added & STATUS.DRIVER_OK) !== 0) this.serveAll();
  }

  private featuresAcceptable(): boolean {
    const [low, high] = this.driverFeatures;
    return (low & ~this.offered[0]) === 0 && (high & ~this.offered[1]) === 0 && (high & FEATURE_HIGH.VERSION_1) !== 0;
  }

  private applyFeatures(): void {
    const [low] = this.driverFeatures;
    for (const queue of this.queues) {
      queue.setFeatures((low & FEATURE_LOW.EVENT_IDX) !== 0, (low & FEATURE_LOW.INDIRECT_DESC) !== 0);
    }
  }

  private resetVirtio(): void {
    this.status = 0;
    this.driverFeatures.fill(0);
    this.configVector = NO_VECTOR;
    this.isr = 0;
    this.unfinished = 0;
    this.resumeAt = Number.POSITIVE_INFINITY;
    this.resumeTimer.cancel();
    for (const queue of this.queues) queue.reset();
    this.applyFeatures();
    this.device.reset();
    this.pci.setPin(false);
  }

  /** 2.1.2: nothing is consumed before DRIVER_OK, nor after the device asked to be reset. A function without the bus reads no memory. */
  private active(): boolean {
    const needed = STATUS.FEATURES_OK | STATUS.DRIVER_OK;
    const stopped = STATUS.NEEDS_RESET | STATUS.FAILED;
    return (this.status & (needed | stopped)) === needed && this.pci.busMaster;
  }

  private serveAll(): void {
    for (let index = 0; index < this.queues.length; index++) this.serve(index);
  }

  private serve(index: number): void {
    const queue = this.queues.at(index);
    if (queue === undefined || !queue.enabled || !this.active()) return;
    queue.beginBatch();
    this.device.serve(index, queue);
    if (queue.batchSpent) {
      this.unfinished |= 1 << index;
      this.resumeAt = this.timers.clock.now() + RESUME_DELAY;
      this.resumeTimer.arm(this.resumeAt);
    }
    if (queue.takeSignal()) this.signal(queue.vector, ISR.QUEUE);
  }

  private resume(): void {
    const { unfinished } = this;
    this.unfinished = 0;
    this.resumeAt = Number.POSITIVE_INFINITY;
    for (let index = 0; index < this.queues.length; index++) if ((unfinished & (1 << index)) !== 0) this.serve(index);
  }

  private signalConfig(): void {
    if ((this.status & STATUS.DRIVER_OK) !== 0) this.signal(this.configVector, ISR.CONFIG);
  }

  /** 4.1.5.3 and 4.1.5.4: by message where MSI-X is on, else through the ISR status and the pin. */
  private signal(vector: number, cause: number): void {
    if (this.pci.msix?.enabled) {
      if (vector !== NO_VECTOR) this.pci.msix.signal(vector);
      return;
    }
    this.isr |= cause;
    this.pci.setPin(true);
  }

  /** 4.1.4.5.1: reading the ISR status clears it and releases the pin. */
  private takeIsr(): number {
    const { isr } = this;
    this.isr = 0;
    this.pci.setPin(false);
    return isr;
  }
}
