// What the engine module and whoever instantiates it must agree on.

/** Name of the module that its imports come from. */
export const IMPORT = "skep";
