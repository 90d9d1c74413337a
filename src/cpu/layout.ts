// The map of a vCPU's own memory beyond the registers (src/isa/state.ts): engine variables, decoding tables, caches, TLB, records.
// All sizes are in bytes. The tables are sparse: only what is touched costs memory.

/** Engine variables, i32 unless noted. Not guest-visible. */
export const VAR = {
  /** Instructions left until the run loop returns; at a block's end what the block retired is taken off. */
  BUDGET: 0x3000,
  /** The run ends where BUDGET is no more than this: 0, or LIMIT_NOW since somebody, perhaps on another thread, wants the vCPU to come back. It
   *  lies in a cache line that the vCPU does not write while it runs, and at another offset in its page than what is written often: a load
   *  behind a store at the same low 12 bits waits for it (with LIMIT at 0x5000 indirect jumps took three times as long). */
  LIMIT: 0x5540,
  /** EXIT reason when the run loop returns. */
  EXIT_REASON: 0x3004,
  /** 0, 1, 2 for 16-, 32-, 64-bit code. */
  CODE_MODE: 0x3008,
  /** What blocks are found by besides their place: the code mode, and bit 2 where the limit of CS ends within a page. */
  CODE_KEY: 0x3070,
  /** Last generation given out: a number that jump cache entries are valid with. */
  GENERATION: 0x300c,
  /** Generation of the upper half of the linear addresses, where what is global outlives CR3 loads. */
  HIGH_GENERATION: 0x3010,
  /** 1 since the jump cache has taken an address of the upper half in a page that is not global. */
  HIGH_LOCAL: 0x30d8,
  /** Not zero where an instruction fetch since it was cleared went to a page that is not global. */
  FETCH_LOCAL: 0x30dc,
  /** Tags of valid jump cache entries, for the lower and the upper half of the linear addresses: generation, privilege and code key. */
  JUMP_TAG: 0x30e0,
  /** Number of the address space in use (SPACES), how many have tables that are set up, and a count of the changes between them. */
  SPACE: 0x30e8,
  SPACES_READY: 0x30ec,
  SPACE_CLOCK: 0x30f0,
  /** Bases of the TLB tables in use for data reads and writes. */
  TLB_READ: 0x3014,
  TLB_WRITE: 0x3018,
  /** Not zero while the core holds an interrupt or NMI that waits for the guest to accept it. */
  EVENT_PENDING: 0x301c,
  /** First free byte of the record arena. */
  ARENA_NEXT: 0x3020,
  /** Number of filled slots in the two flush lists of the supervisor's tables. */
  TLB_FILLED: 0x3024,
  TLB_FILLED_GLOBAL: 0x3028,
  /** Start of the page words (PAGE_WORDS) in guest RAM's memory. */
  CODE_MAP: 0x302c,
  /** End of RAM below the PCI hole, which is mapped to itself from 1 MiB on. */
  LOW_RAM_END: 0x3030,
  SLOT_COUNT: 0x3034,
  /** Guest-physical address of the last access that was no RAM (i64). */
  MMIO_GPA: 0x3038,
  /** The page of the latest access that was no RAM, which no TLB entry can hold: linear page with the WALK bits of the access (i64),
   *  guest-physical page (i64), and the read table that was in use then, or 0 where nothing is known. */
  DEVICE_PAGE: 0x3120,
  DEVICE_GPA: 0x3128,
  DEVICE_TABLE: 0x3130,
  /** Record at which a region left (src/cpu/translator). */
  IP: 0x3040,
  /** Executions after which a block is noted as hot; 0: never. */
  HOT_THRESHOLD: 0x3044,
  /** Blocks noted at HOT_LIST. */
  HOT_COUNT: 0x3048,
  /** Where the next entry of the journal goes; 0: nothing is noted. */
  JOURNAL_NEXT: 0x304c,
  /** 1 since a data access at a non-canonical address raised #GP: where the operand is in the stack segment it becomes #SS. */
  NOT_CANONICAL: 0x309c,
  /** Bits that an instruction pointer has in the current mode (i64). */
  RIP_MASK: 0x3078,
  /** Masks that a TLB lookup's XOR must be clear of, for accesses of 1, 2, 4, 8, 16 bytes (i64 each): all bits above guest RAM, and misalignment. */
  TLB_MASK: 0x30a0,
  /** The mask of an access that need not be aligned: that of one byte, or where alignment is checked (SDM Vol. 3A 6.15, #AC) that of 16 (i64). */
  UNALIGNED_MASK: 0x3118,
  /** (Entries of a TLB table - 1) * 8. */
  TLB_INDEX_MASK: 0x30c8,
  /** Contents of an empty TLB entry before its index is mixed in: TLB_EMPTY_TAG and the host offset of a page that is nobody's (i64). */
  TLB_EMPTY: 0x30d0,
  /** log2 of the size of guest RAM's memory, rounded up. */
  RAM_BITS: 0x30cc,
  /** Statistics (i32 each, wrapping; the host reads differences). */
  COUNT_LOOKUPS: 0x3080,
  COUNT_DECODED: 0x3084,
  COUNT_INVALIDATED: 0x3088,
  COUNT_WALKS: 0x308c,
  COUNT_ARENA_FLUSHES: 0x3090,
  COUNT_FAULTS: 0x3094,
  COUNT_TLB_FLUSHES: 0x3098,
  /** Instructions charged from where regions were entered to where they left (i64), and how often the interpreter was asked to do one instead. */
  COUNT_IN_REGIONS: 0x3100,
  COUNT_REGION_MISSES: 0x3108,
  COUNT_SPLIT_LOCKS: 0x3110,
  /** PAUSE instructions until the run is to end; 0 or less: it does not end by them. */
  PAUSES: 0x3114,
} as const;

/** VAR.LIMIT of a vCPU that is to leave at its next poll. */
export const LIMIT_NOW = 0x7fffffff;

/** What all vCPUs share about a 4 KiB page of guest RAM, by page from VAR.CODE_MAP on (src/cpu/code-pages.ts). */
export const PAGE_WORDS = {
  /** One bit for each 64 bytes from which somebody has decoded code (i64). */
  CODE: 0,
  /** PAGE_STATE bits (i32), and in the next i32 a count of the stores made while the page was closed. */
  STATE: 8,
  STORES: 12,
  SIZE: 16,
} as const;
export const PAGE_STATE = {
  /** No write table takes the page in. */
  CLOSED: 1,
  /** No write table has it: code may be decoded from it and kept. */
  SEALED: 2,
  /** Counts how often the page was opened again. */
  OPENED: 4,
} as const;

/** Words that all vCPUs share lie so far before VAR.CODE_MAP; offsets from there, each in a cache line of its own. */
export const SHARED_WORDS = 32768;
export const SHARED = {
  /** Locks (src/cpu/shared-lock.ts): over PAGE_WORDS.STATE, and over locked accesses that no atomic instruction can do. */
  PAGE_LOCK: 0,
  SPLIT_LOCK: 64,
} as const;

/** Memory slots: guest-physical start and end (i64 each), host offset (i32), flags (i32: bit 0 writable). */
export const SLOT_BASE = 0x3400;
export const SLOT_SIZE = 24;
export const SLOT_MAX = 32;

/** Bytes of the instruction being decoded are collected here when it crosses a page. */
export const FETCH_BUFFER = 0x3800;

/** A block of one instruction for single steps and interrupt shadows; never cached. */
export const STEP_BLOCK = 0x3900;

/** Where the TLB may hold parts of large pages, which INVLPG drops as a whole: bit maps by linear address, hashed, of regions of 4 MiB
 *  (pages of 2 and 4 MiB) and of 1 GiB. */
export const LARGE_PAGES = 0x4000;
export const HUGE_PAGES = 0x4200;
export const PAGE_MAP_BITS = 4096;

/** Blocks that have become hot: first record (i32), and at 8 RIP_BASE when they did (i64). */
export const HOT_LIST = 0x6000;
export const HOT_LIST_ENTRIES = 512;

/** Decoding tables (src/cpu/decode-table.ts). */
export const DECODE_BASE = 0x8000;
export const DECODE_END = 0x60000;

/** Jump cache: linear address (i64), first record (i32), tag (i32). */
export const JUMP_CACHE = 0x60000;
export const JUMP_CACHE_ENTRIES = 16384;

/** Block hash by host address and mode: record address of the first block of a chain. */
export const BLOCK_HASH = 0xa0000;
export const BLOCK_HASH_ENTRIES = 65536;

/** Lists of TLB slots to clear at a flush: of the supervisor's tables those that are not global and those that are, and of each address space. */
export const TLB_LIST = 0xe0000;
export const TLB_LIST_ENTRIES = 32768;
export const TLB_LIST_GLOBAL = TLB_LIST + TLB_LIST_ENTRIES * 4;
export const SPACE_LISTS = TLB_LIST_GLOBAL + TLB_LIST_ENTRIES * 4;

/** Address spaces that the TLB holds at once: Linux uses six PCIDs a processor. */
export const SPACES = 6;
/** Pages that instructions have been fetched from, as LARGE_PAGES. */
export const FETCHED_PAGES = SPACE_LISTS + SPACES * TLB_LIST_ENTRIES * 4;
export const FETCHED_PAGES_BITS = 32768;

/** An address space: PCID or -1, generation of its jump cache entries, filled slots in its list, VAR.SPACE_CLOCK when it was last taken. */
export const SPACE_BASE = 0x4400;
export const SPACE = { PCID: 0, GENERATION: 4, FILLED: 8, USED: 12, SIZE: 16 } as const;

/** 16 bytes of an access that crosses a page. */
export const CROSSING = 0x4480;

/** Tables of 8-byte entries, one entry a page of guest RAM rounded up to a power of two (at most 2^20), so that the index and the host
 *  offset share no bit; room for the largest. Read and write for supervisor, supervisor with SMAP overridden by RFLAGS.AC, and the user of
 *  each address space. */
export const TLB_BASE = 0x200000;
export const TLB_TABLE_SIZE = 0x800000;
export const TLB_SETS = { SUPERVISOR: 0, SUPERVISOR_AC: 1, USER: 2 } as const;
const TLB_TABLES = 2 * (TLB_SETS.USER + SPACES);
/** Tag of an empty entry: a non-canonical address. Whoever accesses just that address gets the page TLB_EMPTY names, and no guest memory. */
export const TLB_EMPTY_TAG = 0xa5a5n << 48n;

/** Per 4 KiB page of host memory: first block header of the page's list. */
export const PAGE_HEADS = TLB_BASE + TLB_TABLES * TLB_TABLE_SIZE;
export const PAGE_HEADS_SIZE = 0x400000;

/** Blocks: header, records, tail. */
export const ARENA = PAGE_HEADS + PAGE_HEADS_SIZE;
export const ARENA_SIZE = 0x3000000;
/** Executions by handler number, in engine modules that count them. */
export const HANDLER_COUNTS = ARENA + ARENA_SIZE;
/** Where blocks went on that end in no relative jump: last record, low 32 bits of RIP (i32 each), by a hash of both. */
export const GOALS = HANDLER_COUNTS + 0x10000;
export const GOALS_ENTRIES = 8192;
/** What regions know of a vCPU's own blocks, by table slot, at the same address in all vCPUs: the first record of each block (i32), and which pages
 *  have been found where they were when the region was made (bits of PAGES), at which RIP of the first page, by which tag of the jump cache and
 *  after how many invalidations. */
export const DESCRIPTORS = GOALS + GOALS_ENTRIES * 8;
export const DESCRIPTOR_SIZE = 1024;
/** Regions that a vCPU may have at a time. */
export const REGIONS_MAX = 32768;
export const DESCRIPTOR = { BLOCKS: 0, BASE: 1000, TAG: 1008, INVALIDATIONS: 1012, PAGES: 1016 } as const;
/** A byte for each page of host memory: not 0 where a write table may have it. */
export const WRITTEN_PAGES = DESCRIPTORS + REGIONS_MAX * DESCRIPTOR_SIZE;
/** How often each region was entered since it was last asked (i32), by table slot: close together, since all are looked at again and again. */
export const ENTRY_COUNTS = WRITTEN_PAGES + 0x100000;
export const CPU_MEMORY_SIZE = ENTRY_COUNTS + REGIONS_MAX * 4;

/** What stores to guest RAM have overwritten, in engine modules that note it (src/cpu/translator/check.ts): address, bytes (i32 each), what was there,
 *  rounded up to 8 bytes. Such engines have larger memories. */
export const JOURNAL = CPU_MEMORY_SIZE;
export const JOURNAL_END = JOURNAL + 0x400000;
export const JOURNAL_ENTRY_MAX = 4096;

/** Block header. */
export const BLOCK = {
  /** Host offset of the first byte. */
  HOST: 0,
  MODE: 4,
  /** Next block in the hash chain and in the page's list (header addresses). */
  HASH_NEXT: 8,
  PAGE_NEXT: 12,
  /** Instructions and bytes. */
  COUNT: 16,
  LENGTH: 20,
  /** Host page of the second page, where the block's only instruction crosses into one; 0 where it does not. */
  HOST2: 24,
  /** Next block in the second page's list. Addresses in page lists have bit 0 set where the block is there by its second page. */
  PAGE2_NEXT: 28,
  /** Address of the last record, which the tail follows. */
  LAST: 32,
  /** How often the block was entered. */
  HEAT: 36,
  /** Where the first record's handler is ENTER_REGION: table slot of the region, the handler that was there, number of the entry. */
  REGION: 40,
  ORIGINAL: 44,
  ENTRY: 46,
  SIZE: 48,
} as const;
export const BLOCK_MAX_RECORDS = 64;

/** Record of one instruction. */
export const RECORD = {
  HANDLER: 0,
  /** Register byte: offset in the register file (number * 8, or the high byte registers), or a plain number for segment, control and debug registers. */
  A: 2,
  /** The same for ModRM.rm, or the base register. */
  B: 3,
  /** Index register. */
  C: 4,
  /** Bits 0-1 scale, 2-3 address size (0 = 16, 1 = 32, 2 = 64), 4-6 segment, 7 set where the operand size is 16. */
  ADDRESSING: 5,
  /** Bits 0-11 low bits of the linear address, 12-15 length. */
  PLACE: 6,
  DISP: 8,
  IMM: 12,
  SIZE: 16,
} as const;

/** Behind the last record of a block; offsets are from that record. A link is the first record of the block that follows, 0 while unknown. */
export const TAIL = {
  NOT_TAKEN: 16,
  TAKEN: 24,
  SIZE: 16,
} as const;
