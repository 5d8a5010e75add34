// The cost report begins its days at the reader's midnight. Nobody has to choose: the browser knows its zone,
// and the server believes it until a zone is chosen.
const name = "agentops_browser_zone";
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

if (zone && !document.cookie.split("; ").some((cookie) => cookie === `${name}=${zone}`)) {
  document.cookie = `${name}=${zone}; path=/; max-age=31536000; samesite=lax`;
  // The first report of a browser was drawn in UTC.
  const shown = document.querySelector('[data-page="costs"][data-zone-guessed]');
  if (shown && shown.dataset.zoneGuessed !== zone) location.reload();
}
