// What the engine module and whoever instantiates it must agree on.

/** Name of the module that its imports come from. */
export const IMPORT = "skep";

/** Export of engine modules whose accesses to guest RAM are in order on any host; the modules of their regions do the same. */
export const ORDERED_EXPORT = "orderedMemory";
