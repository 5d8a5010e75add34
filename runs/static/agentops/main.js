// What HTML cannot do. Every page works without it; with it, pages live.
import "./morph.js";
import "./live.js";
import "./clocks.js";
import "./forms.js";
import "./complete.js";
import "./trace.js";
import "./keys.js";
import "./notify.js";
