"""From an image in any form to the pixel values of its tiles."""
