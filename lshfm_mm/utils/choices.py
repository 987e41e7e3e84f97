"""What tools/make_config.py can be asked for; its help imports no more."""

TAPS = ('roi', 'dense', 'memory', 'fpn', 'pooled')  # the better one first
LOSSES = ('recommended', 'cwd', 'lshl2', 'lsh', 'l2')
