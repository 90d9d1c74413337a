// Registers and constants of virtio over PCI, as data: VIRTIO 1.2, 4.1.

export interface VirtioRegister {
  readonly offset: number;
  readonly size: 1 | 2 | 4;
}

/** struct virtio_pci_common_cfg, 4.1.4.3; the 64-bit fields as their halves, which drivers may access apart (4.1.3.1). */
export const COMMON = {
  device_feature_select: { offset: 0x00, size: 4 },
  device_feature: { offset: 0x04, size: 4 },
  driver_feature_select: { offset: 0x08, size: 4 },
  driver_feature: { offset: 0x0c, size: 4 },
  config_msix_vector: { offset: 0x10, size: 2 },
  num_queues: { offset: 0x12, size: 2 },
  device_status: { offset: 0x14, size: 1 },
  config_generation: { offset: 0x15, size: 1 },
  queue_select: { offset: 0x16, size: 2 },
  queue_size: { offset: 0x18, size: 2 },
  queue_msix_vector: { offset: 0x1a, size: 2 },
  queue_enable: { offset: 0x1c, size: 2 },
  queue_notify_off: { offset: 0x1e, size: 2 },
  queue_desc_low: { offset: 0x20, size: 4 },
  queue_desc_high: { offset: 0x24, size: 4 },
  queue_driver_low: { offset: 0x28, size: 4 },
  queue_driver_high: { offset: 0x2c, size: 4 },
  queue_device_low: { offset: 0x30, size: 4 },
  queue_device_high: { offset: 0x34, size: 4 },
  queue_notify_data: { offset: 0x38, size: 2 },
  queue_reset: { offset: 0x3a, size: 2 },
} as const satisfies { [name: string]: VirtioRegister };

export type CommonRegister = keyof typeof COMMON;

/** Which register a byte of the structure belongs to. */
export const COMMON_AT: readonly (CommonRegister | undefined)[] = Array.from({ length: 0x40 }, (_, at) => {
  const names = Object.keys(COMMON) as CommonRegister[];
  return names.find((name) => at >= COMMON[name].offset && at < COMMON[name].offset + COMMON[name].size);
});

/** Device status bits, 2.1. */
export const STATUS = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Reserved feature bits, chapter 6: the low word's, and the high word's less 32. */
export const FEATURE_LOW = { INDIRECT_DESC: 1 << 28, EVENT_IDX: 1 << 29 } as const;
export const FEATURE_HIGH = { VERSION_1: 1 << 0, RING_RESET: 1 << 8 } as const;

/** ISR status, 4.1.4.5. */
export const ISR = { QUEUE: 1, CONFIG: 2 } as const;

/** cfg_type of struct virtio_pci_cap, 4.1.4. */
export const CFG_TYPE = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4, PCI: 5 } as const;

/** struct virtio_pci_cap from the start of the capability; what the driver may write is so only in the PCI_CFG one (4.1.4.9). */
export const CAP = {
  cap_len: { offset: 2, size: 1 },
  cfg_type: { offset: 3, size: 1 },
  bar: { offset: 4, size: 1 },
  offset: { offset: 8, size: 4 },
  length: { offset: 12, size: 4 },
  /** notify_off_multiplier of the NOTIFY capability, pci_cfg_data of the PCI_CFG one. */
  extra: { offset: 16, size: 4 },
} as const satisfies { [name: string]: VirtioRegister };
export const CAP_LENGTH = { plain: 16, extended: 20 } as const;

export const PCI_VENDOR = 0x1af4;
/** PCI device ID less the virtio device ID (4.1.2). */
export const PCI_DEVICE_BASE = 0x1040;
