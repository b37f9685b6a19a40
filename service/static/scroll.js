// Follows the end of the conversation, but only while the reader is there.

const BOTTOM_MARGIN_PX = 60;
const scroller = document.getElementById("scroller");
const endButton = document.getElementById("to-end");
let following = true;

export function toEnd() {
  scroller.scrollTop = scroller.scrollHeight;
  following = true;
  endButton.hidden = true;
}

/** To be called after the conversation has grown. */
export function followEnd() {
  if (following) toEnd();
  else endButton.hidden = atEnd();
}

export function watchScrolling(afterJump) {
  scroller.addEventListener("scroll", () => {
    following = atEnd();
    endButton.hidden = following;
  });
  // The keyboard of a phone, or a growing composer, takes room away.
  new ResizeObserver(() => following && toEnd()).observe(scroller);
  endButton.addEventListener("click", () => {
    toEnd();
    afterJump();
  });
}

function atEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < BOTTOM_MARGIN_PX;
}
