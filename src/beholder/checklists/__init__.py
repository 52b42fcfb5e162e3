"""What a checklist learns from people: its weights from preferences, its judge from answers (VisionReward, 2412.21059).

``beholder annotate``, ``weigh``, ``bias`` and ``teach``; in Python each is the function in the module of its name.
"""
